import type { Redis } from "ioredis";
import type { TenantDb } from "../db/database.ts";
import { Refusal } from "../errors.ts";
import type { TenantId } from "../ids.ts";
import { type CatalogueEntry, currentCatalogue } from "./catalogue.ts";

/** The plugin with this name, if this tenant may know of it; throws NOT_FOUND. `generation` is what the guard saw of the registry. */
export async function visiblePlugin(db: TenantDb, redis: Redis, generation: string | null | undefined, tenantId: TenantId, name: string): Promise<CatalogueEntry> {
  const entry = (await currentCatalogue(db, redis, generation ?? null, tenantId)).plugins.get(name);
  if (!entry) throw new Refusal("NOT_FOUND", { message: `There is no plugin named ${name}.` });
  return entry;
}
