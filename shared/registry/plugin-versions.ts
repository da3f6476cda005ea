/** Plugin versions that plans name. A version's manifest never changes and its endpoint rarely; each process keeps those of one registry generation. */
import * as v from "valibot";
import type { PlatformDb } from "../db/database.ts";
import { Manifest } from "../sdk/src/manifest.ts";

export interface PluginVersion {
  manifest: Manifest;
  endpoint: string;
}

const Row = v.object({ name: v.string(), version: v.string(), manifest: Manifest, endpoint: v.string() });
const held = new WeakMap<PlatformDb, { generation: string; versions: Map<string, PluginVersion> }>();

const keyOf = (name: string, version: string) => `${name}@${version}`;

/** The version that a plan names, as of this generation or a later one. Throws when the registry has none: plans are made from it. */
export async function pluginVersion(db: PlatformDb, generation: string, name: string, version: string): Promise<PluginVersion> {
  let own = held.get(db);
  if (own?.generation !== generation) {
    own = { generation, versions: new Map() };
    held.set(db, own);
  }
  const known = own.versions.get(keyOf(name, version));
  if (known) return known;
  const [raw] = await db.call("SELECT p.name, v.version, v.manifest, v.endpoint FROM plugins p JOIN plugin_versions v ON v.plugin_id = p.id WHERE p.name = $1 AND v.version = $2", [
    name,
    version,
  ]);
  if (!raw) throw new Error("a task's plan names a plugin version that is not in the registry");
  const { manifest, endpoint } = v.parse(Row, raw);
  const found = { manifest, endpoint };
  own.versions.set(keyOf(name, version), found);
  return found;
}
