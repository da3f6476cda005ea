/** What a manifest may not depend on: itself, a range that is none, or a plugin that in the end depends on it. */
import { Refusal } from "../errors.ts";
import type { Manifest } from "../sdk/src/manifest.ts";
import { isVersionRange, pickVersion } from "./version-range.ts";

/** Throws INVALID_INPUT. */
export function checkDependencies({ name, dependencies }: Manifest): void {
  const seen = new Set<string>();
  for (const [i, dependency] of dependencies.entries()) {
    const path = `manifest.dependencies.${i}`;
    if (!isVersionRange(dependency.version)) throw wrong(`${path}.version`, "must be a version range such as ^1.2.0 or >=1.2.0 <2.0.0");
    if (dependency.name === name) throw wrong(`${path}.name`, "a plugin cannot depend on itself");
    if (seen.has(dependency.name)) throw wrong(`${path}.name`, `${dependency.name} is there twice`);
    seen.add(dependency.name);
  }
}

function wrong(path: string, message: string): Refusal {
  return new Refusal("INVALID_INPUT", { message: `The body is not valid: ${path}: ${message}`, details: { issues: [{ path, message }] } });
}

/** By plugin and version: what each depends on. */
export type DependencyGraph = ReadonlyMap<string, ReadonlyMap<string, Manifest["dependencies"]>>;

/**
 * The plugins of a circle that this version would close, beginning and ending with the same; null when there is none. Each dependency stands for
 * the version that a plan would pick now, and a plugin may depend on itself in no version. Depth first; what is not registered yet depends on nothing.
 */
export function findDependencyCircle(graph: DependencyGraph, name: string, version: string): string[] | null {
  const done = new Set<string>();
  const path: string[] = [];
  const visit = (plugin: string, at: string): string[] | null => {
    const start = path.indexOf(plugin);
    if (start >= 0) return [...path.slice(start), plugin];
    const key = `${plugin}@${at}`;
    if (done.has(key)) return null;
    path.push(plugin);
    for (const dependency of graph.get(plugin)?.get(at) ?? []) {
      const picked = pickVersion([...(graph.get(dependency.name)?.keys() ?? [])], [dependency.version]);
      const circle = picked === null ? null : visit(dependency.name, picked);
      if (circle) return circle;
    }
    path.pop();
    done.add(key);
    return null;
  };
  return visit(name, version);
}
