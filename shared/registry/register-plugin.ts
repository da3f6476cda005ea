/** Writes to the catalogue. Registering the same version again is how a plugin says that it is (still) there: it changes nothing but the endpoint. */

import { sql } from "kysely";
import * as semver from "semver";
import type { PlatformDb } from "../db/database.ts";
import { Refusal } from "../errors.ts";
import { newId } from "../ids.ts";
import type { Embedder } from "../models/embedder.ts";
import type { Manifest } from "../sdk/src/manifest.ts";
import { type Health, vectorToBytes } from "./catalogue.ts";

export interface Registered {
  pluginId: string;
  generation: string;
  isNew: boolean;
}

/** Embeds first and writes after: no transaction waits for a model. A version that is known with another manifest is refused. */
export async function registerPlugin(db: PlatformDb, embedder: Embedder, manifest: Manifest, endpoint: string, signal?: AbortSignal): Promise<Registered> {
  const vectors = await embedder.embed(manifest.capabilities, signal);
  const parsed = semver.parse(manifest.version);
  if (!parsed) throw new Refusal("INVALID_INPUT", { message: "manifest.version is not a semantic version." });
  const versionSort = [parsed.major, parsed.minor, parsed.patch, parsed.prerelease.length === 0 ? 1 : 0];

  return db.platform(async (tx) => {
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

async function nextGeneration(tx: Parameters<Parameters<PlatformDb["platform"]>[0]>[0]): Promise<string> {
  const { rows } = await sql<{ generation: string }>`UPDATE registry_state SET generation = generation + 1 RETURNING generation::text AS generation`.execute(tx);
  return rows[0]?.generation ?? "0";
}

/** JSON with sorted keys: jsonb does not keep the order in which a manifest was written. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, member: unknown) =>
    typeof member === "object" && member !== null && !Array.isArray(member) ? Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1))) : member,
  );
}
