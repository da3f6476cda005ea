/** What a plugin or the probe says of a version's health. */
import { sql } from "kysely";
import type { PlatformDb } from "../db/database.ts";
import type { Health } from "./catalogue.ts";
import { nextGeneration } from "./register-plugin.ts";

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
      .select(["pv.id", "pv.version", "pv.status", sql<string>`pv.health->>'status'`.as("was")])
      .where("p.name", "=", name)
      .where("pv.status", "in", ["pending", "active", "deprecated"])
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
    return { unhealthy, generation: affected.some((row) => row.was !== health.status && row.status !== "pending") ? await nextGeneration(tx) : null };
  });
}
