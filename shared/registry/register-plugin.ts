/** Writes to the catalogue. Registering the same version again is how a plugin says that it is (still) there: it changes nothing but the endpoint. */

import { sql } from "kysely";
import * as semver from "semver";
import * as v from "valibot";
import type { PlatformDb, Tx } from "../db/database.ts";
import { Refusal } from "../errors.ts";
import { newId } from "../ids.ts";
import type { Embedder } from "../models/embedder.ts";
import { Manifest } from "../sdk/src/manifest.ts";
import { type Health, vectorToBytes } from "./catalogue.ts";
import { compileConfigSchema } from "./config-issues.ts";
import { checkDependencies, type DependencyGraph, findDependencyCircle } from "./refuse-dependencies.ts";

export interface Registered {
  pluginId: string;
  generation: string;
  isNew: boolean;
}

/** Embeds first and writes after: no transaction waits for a model. A version that is known with another manifest is refused. */
export async function registerPlugin(db: PlatformDb, embedder: Embedder, manifest: Manifest, endpoint: string, signal?: AbortSignal): Promise<Registered> {
  checkDependencies(manifest);
  checkConfigSchema(manifest);
  const vectors = await embedder.embed(manifest.capabilities, signal);
  const parsed = semver.parse(manifest.version);
  if (!parsed) throw new Refusal("INVALID_INPUT", { message: "manifest.version is not a semantic version." });
  const versionSort = [parsed.major, parsed.minor, parsed.patch, parsed.prerelease.length === 0 ? 1 : 0];

  return db.platform(async (tx) => {
    await refuseCircle(tx, manifest);
    const plugin = await tx
      .insertInto("plugins")
      .values({ id: newId("plugin"), name: manifest.name, category: manifest.category })
      .onConflict((c) => c.column("name").doUpdateSet({ category: manifest.category }))
      .returning("id")
      .executeTakeFirstOrThrow();
    const known = await tx
      .selectFrom("plugin_versions")
      .select(["id", "manifest", "endpoint", "status"])
      .where("plugin_id", "=", plugin.id)
      .where("version", "=", manifest.version)
      .executeTakeFirst();
    if (known && canonical(known.manifest) !== canonical(manifest)) {
      throw new Refusal("CONFLICT", { message: `${manifest.name} ${manifest.version} is registered with another manifest; publish a new version.` });
    }
    const versionId = known?.id ?? newId("version");
    if (known)
      await tx
        .updateTable("plugin_versions")
        .set({ endpoint, status: known.status === "inactive" ? "active" : known.status })
        .where("id", "=", known.id)
        .execute();
    else {
      await tx
        .insertInto("plugin_versions")
        .values({
          id: versionId,
          plugin_id: plugin.id,
          version: manifest.version,
          version_sort: versionSort,
          manifest: JSON.stringify(manifest),
          endpoint,
          envelope_version: manifest.envelope_version,
        })
        .execute();
    }
    await tx.deleteFrom("plugin_capabilities").where("plugin_version_id", "=", versionId).where("model", "=", embedder.model).execute();
    await tx
      .insertInto("plugin_capabilities")
      .values(
        manifest.capabilities.map((capability, position) => ({
          plugin_version_id: versionId,
          position,
          capability,
          model: embedder.model,
          embedding: vectorToBytes(vectors[position] ?? new Float32Array(1536)),
        })),
      )
      .execute();
    return { pluginId: plugin.id, generation: await nextGeneration(tx), isNew: !known };
  });
}

const DependencyRow = v.object({ name: v.string(), version: v.string(), dependencies: Manifest.entries.dependencies });

/** Only a plugin that depends on others can close a circle. Such registrations go one at a time, else two could close it together. */
async function refuseCircle(tx: Tx, { name, version, dependencies }: Manifest): Promise<void> {
  if (dependencies.length === 0) return;
  await sql`SELECT FROM registry_state FOR UPDATE`.execute(tx);
  const { rows } = await sql`
    SELECT p.name, pv.version, coalesce(pv.manifest->'dependencies', '[]') AS dependencies FROM plugins p JOIN plugin_versions pv ON pv.plugin_id = p.id
    WHERE p.status IN ('active', 'deprecated') AND pv.status IN ('active', 'deprecated')`.execute(tx);
  const graph = new Map<string, Map<string, Manifest["dependencies"]>>([[name, new Map()]]);
  for (const row of v.parse(v.array(DependencyRow), rows)) graph.set(row.name, (graph.get(row.name) ?? new Map()).set(row.version, row.dependencies));
  graph.get(name)?.set(version, dependencies);
  const path = findDependencyCircle(graph satisfies DependencyGraph, name, version);
  if (path) throw new Refusal("CIRCULAR_DEPENDENCY", { message: `There is a circle: ${path.join(" → ")}.`, details: { path } });
}

/** A schema that cannot be compiled would refuse every configuration, long after its publisher has gone. */
function checkConfigSchema({ config_schema }: Manifest): void {
  if (!config_schema) return;
  try {
    compileConfigSchema(config_schema);
  } catch (cause) {
    throw new Refusal("INVALID_INPUT", { message: "manifest.config_schema cannot be compiled: it is no JSON Schema, or has a pattern that RE2 does not know.", cause });
  }
}

/** Takes a version out of routing. Tasks that hold it finish. Null: no such version. */
export async function deregisterPlugin(db: PlatformDb, name: string, version: string): Promise<string | null> {
  return db.platform(async (tx) => {
    const changed = await tx
      .updateTable("plugin_versions")
      .set({ status: "inactive" })
      .where("version", "=", version)
      .where("plugin_id", "=", (sub) => sub.selectFrom("plugins").select("id").where("name", "=", name))
      .returning("id")
      .executeTakeFirst();
    return changed ? nextGeneration(tx) : null;
  });
}

interface HealthReported {
  generation: string | null;
  /** Versions that were unhealthy so often in a row that nothing more should be sent to them. */
  unhealthy: string[];
}

const UNHEALTHY_TO_TRIP = 3;

/** Stores what a plugin or the probe says of its health. The catalogue changes only when the status does. Null: no such plugin. */
export async function reportHealth(db: PlatformDb, name: string, version: string | null, health: Health): Promise<HealthReported | null> {
  return db.platform(async (tx) => {
    const rows = await tx
      .selectFrom("plugin_versions as pv")
      .innerJoin("plugins as p", "p.id", "pv.plugin_id")
      .select(["pv.id", "pv.version", sql<string>`pv.health->>'status'`.as("was")])
      .where("p.name", "=", name)
      .where("pv.status", "in", ["active", "deprecated"])
      .forUpdate()
      .execute();
    const affected = rows.filter((row) => version === null || row.version === version);
    if (affected.length === 0) return null;
    const updated = await tx
      .updateTable("plugin_versions")
      .set({
        health: sql`${JSON.stringify(health)}::jsonb`,
        health_at: sql<Date>`now()`,
        consecutive_unhealthy: health.status === "unhealthy" ? sql<number>`consecutive_unhealthy + 1` : 0,
      })
      .where(
        "id",
        "in",
        affected.map((row) => row.id),
      )
      .returning(["version", "consecutive_unhealthy"])
      .execute();
    const unhealthy = updated.filter((row) => row.consecutive_unhealthy >= UNHEALTHY_TO_TRIP).map((row) => row.version);
    return { unhealthy, generation: affected.some((row) => row.was !== health.status) ? await nextGeneration(tx) : null };
  });
}

async function nextGeneration(tx: Tx): Promise<string> {
  const { rows } = await sql<{ generation: string }>`UPDATE registry_state SET generation = generation + 1 RETURNING generation::text AS generation`.execute(tx);
  return rows[0]?.generation ?? "0";
}

/** JSON with sorted keys: jsonb does not keep the order in which a manifest was written. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, member: unknown) =>
    typeof member === "object" && member !== null && !Array.isArray(member) ? Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1))) : member,
  );
}
