/** Plugin versions that plans name. A version's manifest never changes and its endpoint rarely; each process keeps those of one registry generation. */
import * as v from "valibot";
import type { PlatformDb } from "../db/database.ts";
import { Manifest } from "../sdk/src/manifest.ts";

export interface PluginVersion {
  manifest: Manifest;
  endpoint: string;
  /** The plugin is on its way out: every result says so. */
  ending: PluginEnding | null;
}

export interface PluginEnding {
  sunsetAt: Date;
  migrationGuideUrl: string | null;
}

/** How a plugin's row says that it is on its way out. */
export const Life = v.object({ status: v.string(), sunset_at: v.nullable(v.date()), migration_guide_url: v.nullable(v.string()) });

export function endingOf({ status, sunset_at, migration_guide_url }: v.InferOutput<typeof Life>): PluginEnding | null {
  return status === "active" || sunset_at === null ? null : { sunsetAt: sunset_at, migrationGuideUrl: migration_guide_url };
}

const Row = v.object({ manifest: Manifest, endpoint: v.string(), ...Life.entries });
const held = new WeakMap<Reader, { generation: string; versions: Map<string, PluginVersion> }>();

/** The registry belongs to no tenant, so that either door to the database may read it. */
type Reader = Pick<PlatformDb, "call">;

const keyOf = (name: string, version: string) => `${name}@${version}`;

/** The version that a plan names, as of this generation or a later one. Throws when the registry has none: plans are made from it. */
export async function pluginVersion(db: Reader, generation: string, name: string, version: string): Promise<PluginVersion> {
  let own = held.get(db);
  if (own?.generation !== generation) {
    own = { generation, versions: new Map() };
    held.set(db, own);
  }
  const known = own.versions.get(keyOf(name, version));
  if (known) return known;
  const [raw] = await db.call(
    `SELECT v.manifest, v.endpoint, p.status, p.sunset_at, p.migration_guide_url FROM plugins p JOIN plugin_versions v ON v.plugin_id = p.id
     WHERE p.name = $1 AND v.version = $2`,
    [name, version],
  );
  if (!raw) throw new Error("a task's plan names a plugin version that is not in the registry");
  const { manifest, endpoint, ...life } = v.parse(Row, raw);
  const found = { manifest, endpoint, ending: endingOf(life) };
  own.versions.set(keyOf(name, version), found);
  return found;
}

/** What callers of a plugin that is on its way out are told with every result; null for any other. */
export function endingWarning({ manifest, ending }: PluginVersion): string | null {
  if (!ending) return null;
  const guide = ending.migrationGuideUrl === null ? "" : ` What to do instead: ${ending.migrationGuideUrl}`;
  return `${manifest.name} is deprecated and takes no tasks after ${ending.sunsetAt.toISOString()}.${guide}`;
}
