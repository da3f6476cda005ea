import type { ResourceName } from "../shared/host/resources.ts";

/** Where a resource's opener stands, from the repository's root: the need's name in kebab case is the file's name. */
export function openerFile(need: ResourceName): string {
  return `./shared/host/resources/${need.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}.ts`;
}
