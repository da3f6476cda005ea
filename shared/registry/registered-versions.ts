/** What the registry knows of a plugin, for those who run the platform. */
import * as v from "valibot";
import type { PlatformDb } from "../db/database.ts";

const Time = v.nullable(
  v.pipe(
    v.date(),
    v.transform((date) => date.toISOString()),
  ),
);
const Row = v.object({
  version: v.string(),
  status: v.string(),
  endpoint: v.string(),
  image: v.nullable(v.string()),
  signed_by: v.nullable(v.string()),
  health: v.string(),
  /** Tasks that are not over and may still call it: it must keep running until there are none. */
  tasks_in_flight: v.pipe(v.string(), v.transform(Number)),
});
const Plugin = v.object({ name: v.string(), status: v.string(), deprecated_at: Time, sunset_at: Time, migration_guide_url: v.nullable(v.string()) });

export interface RegisteredPlugin {
  plugin: v.InferOutput<typeof Plugin>;
  versions: v.InferOutput<typeof Row>[];
}

/** Null: there is no such plugin. The newest version comes first. */
export async function findRegistered(db: PlatformDb, name: string): Promise<RegisteredPlugin | null> {
  const plugin = await db.platform((tx) =>
    tx.selectFrom("plugins").select(["name", "status", "deprecated_at", "sunset_at", "migration_guide_url"]).where("name", "=", name).executeTakeFirst(),
  );
  if (!plugin) return null;
  const rows = await db.call("SELECT * FROM registered_versions($1)", [name]);
  return { plugin: v.parse(Plugin, plugin), versions: v.parse(v.array(Row), rows) };
}
