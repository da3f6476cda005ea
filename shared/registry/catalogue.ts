/**
 * The plugins that can be routed to, as one value per generation of the registry. PostgreSQL is the truth; a process keeps the
 * last catalogue it read and knows by the generation number that came with the request whether it is still right.
 */
import type { Redis } from "ioredis";
import * as semver from "semver";
import * as v from "valibot";
import type { TenantDb } from "../db/database.ts";
import type { TenantId } from "../ids.ts";
import { EMBEDDING_DIMENSIONS } from "../models/embedder.ts";
import { tryRedis } from "../redis/availability.ts";
import { Manifest } from "../sdk/src/manifest.ts";

export interface CatalogueEntry {
  name: string;
  /** The one tenant that knows of it; null: everybody. */
  owner?: string | null;
  version: string;
  status: string;
  manifest: Manifest;
  health: Health;
  endpoint: string;
  /** One vector per capability sentence, by embedding model. */
  vectors: ReadonlyMap<string, readonly Float32Array[]>;
  /** Every version that can run, this one included: what a plan's ranges are resolved with. */
  versions: ReadonlyMap<string, Manifest>;
}

export interface Catalogue {
  generation: string;
  plugins: ReadonlyMap<string, CatalogueEntry>;
  /** Where a tenant does not see everything: what it is a part of. It serves to make once what all tenants share, and for nothing else. */
  whole?: Catalogue;
}

/** What a scorer may find in an index of the whole; null: all of it. */
export const visibleIn = ({ plugins, whole }: Catalogue): ReadonlySet<string> | null => (whole ? new Set(plugins.keys()) : null);

export const Health = v.object({
  status: v.picklist(["healthy", "degraded", "unhealthy", "unknown"]),
  components: v.record(v.string(), v.string()),
  message: v.optional(v.nullable(v.string())),
});
export type Health = v.InferOutput<typeof Health>;

const GENERATION_KEY = "registry:gen";
const GENERATION_CACHE_SEC = 60;
/** How old a catalogue may be when nobody can say whether it is still right. */
const UNVERIFIED_MS = 10_000;

interface Held {
  catalogue: Catalogue;
  readAtMs: number;
  loading: Promise<Catalogue> | null;
}

const held = new WeakMap<TenantDb, Held>();

/** The catalogue of this generation as this tenant sees it, or the newest when `generation` is null: other tenants' own plugins are not in it. */
export async function currentCatalogue(db: TenantDb, redis: Redis, generation: string | null, tenantId: TenantId): Promise<Catalogue> {
  return viewOf(await wholeCatalogue(db, redis, generation), tenantId);
}

/** By tenant that has plugins of its own; all others share the one under "". */
const views = new WeakMap<Catalogue, ReadonlyMap<string, Catalogue>>();

function viewOf(whole: Catalogue, tenantId: TenantId): Catalogue {
  const made = views.get(whole) ?? viewsOf(whole);
  views.set(whole, made);
  return made.get(tenantId) ?? made.get("") ?? whole;
}

function viewsOf(whole: Catalogue): ReadonlyMap<string, Catalogue> {
  const owners = new Set([...whole.plugins.values()].flatMap(({ owner }) => owner ?? []));
  const seenBy = (viewer: string) => new Map([...whole.plugins].filter(([, { owner }]) => (owner ?? viewer) === viewer));
  return new Map(owners.size === 0 ? [] : [...owners, ""].map((viewer) => [viewer, { generation: whole.generation, plugins: seenBy(viewer), whole }]));
}

/** One load per process at a time. */
async function wholeCatalogue(db: TenantDb, redis: Redis, generation: string | null): Promise<Catalogue> {
  const own = held.get(db);
  if (own && generation === own.catalogue.generation) return own.catalogue;
  if (own && generation === null && performance.now() - own.readAtMs < UNVERIFIED_MS) return own.catalogue;
  if (own?.loading) return own.loading;
  const loading = loadCatalogue(db, own?.catalogue ?? null).then(async (catalogue) => {
    held.set(db, { catalogue, readAtMs: performance.now(), loading: null });
    // NX: a registration that has moved on in the meantime has written its own number.
    if (generation === null) await tryRedis(redis, (r) => r.set(GENERATION_KEY, catalogue.generation, "EX", GENERATION_CACHE_SEC, "NX"));
    return catalogue;
  });
  held.set(db, { catalogue: own?.catalogue ?? { generation: "", plugins: new Map() }, readAtMs: own?.readAtMs ?? Number.NEGATIVE_INFINITY, loading });
  try {
    return await loading;
  } catch (error) {
    if (own) held.set(db, { ...own, loading: null });
    else held.delete(db);
    throw error;
  }
}

/** Tells every process about a change. Without Redis they notice when the number they hold expires. */
export async function announceGeneration(redis: Redis, generation: string): Promise<void> {
  await tryRedis(redis, (r) => r.set(GENERATION_KEY, generation, "EX", GENERATION_CACHE_SEC));
}

const Row = v.object({
  name: v.string(),
  owner: v.nullable(v.string()),
  status: v.string(),
  version: v.string(),
  version_status: v.string(),
  manifest: Manifest,
  endpoint: v.string(),
  health: Health,
  version_id: v.string(),
});
const CapabilityRow = v.object({ plugin_version_id: v.string(), model: v.string(), embedding: v.instance(Uint8Array) });

async function loadCatalogue(db: TenantDb, previous: Catalogue | null): Promise<Catalogue> {
  const [state] = await db.call<{ generation: string }>("SELECT generation::text AS generation FROM registry_state", []);
  const generation = state?.generation ?? "0";
  if (previous?.generation === generation) return previous;
  const rows = v.parse(
    v.array(Row),
    await db.call(
      `SELECT p.name, p.owner_tenant_id AS owner, p.status, pv.version, pv.status AS version_status, pv.manifest, pv.endpoint, pv.health, pv.id AS version_id
       FROM plugins p JOIN plugin_versions pv ON pv.plugin_id = p.id WHERE p.status IN ('active', 'deprecated') AND pv.status IN ('active', 'deprecated')`,
      [],
    ),
  );
  const newest = new Map<string, v.InferOutput<typeof Row>>();
  const versions = new Map<string, Map<string, Manifest>>();
  for (const row of rows) {
    const ofPlugin = versions.get(row.name) ?? new Map<string, Manifest>();
    versions.set(row.name, ofPlugin.set(row.version, row.manifest));
    const rival = newest.get(row.name);
    if (!rival || isNewer(row.version, rival.version)) newest.set(row.name, row);
  }
  const capabilities = v.parse(
    v.array(CapabilityRow),
    await db.call("SELECT plugin_version_id, model, embedding FROM plugin_capabilities WHERE plugin_version_id = ANY($1) ORDER BY plugin_version_id, model, position", [
      [...newest.values()].map((row) => row.version_id),
    ]),
  );
  const vectors = new Map<string, Map<string, Float32Array[]>>();
  for (const { plugin_version_id, model, embedding } of capabilities) {
    const ofVersion = vectors.get(plugin_version_id) ?? new Map<string, Float32Array[]>();
    vectors.set(plugin_version_id, ofVersion);
    const list = ofVersion.get(model) ?? [];
    list.push(vectorFromBytes(embedding));
    ofVersion.set(model, list);
  }
  const plugins = new Map(
    [...newest.values()].map((row) => [
      row.name,
      {
        name: row.name,
        owner: row.owner,
        version: row.version,
        status: row.status,
        manifest: row.manifest,
        health: row.health,
        endpoint: row.endpoint,
        vectors: vectors.get(row.version_id) ?? new Map(),
        versions: versions.get(row.name) ?? new Map(),
      },
    ]),
  );
  return { generation, plugins };
}

/** A release is newer than any pre-release; otherwise the higher semantic version. */
function isNewer(a: string, b: string): boolean {
  const [stableA, stableB] = [semver.prerelease(a) === null, semver.prerelease(b) === null];
  return stableA === stableB ? semver.gt(a, b) : stableA;
}

export function vectorToBytes(vector: Float32Array): Buffer {
  return Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength);
}

export function vectorFromBytes(bytes: Uint8Array): Float32Array {
  if (bytes.byteLength !== EMBEDDING_DIMENSIONS * 4) throw new RangeError(`a stored vector has ${bytes.byteLength} bytes instead of ${EMBEDDING_DIMENSIONS * 4}`);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
}
