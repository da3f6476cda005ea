/** Writes to the catalogue. Registering the same version again is how a plugin says that it is (still) there: it changes nothing but the endpoint. */

import { sql } from "kysely";
import * as semver from "semver";
import * as v from "valibot";
import type { PlatformDb, Tx } from "../db/database.ts";
import { Refusal } from "../errors.ts";
import { newId } from "../ids.ts";
import type { Embedder } from "../models/embedder.ts";
import { Manifest } from "../sdk/src/manifest.ts";
import { SignedAdmission } from "./admission-record.ts";
import { type Admission, isStillAdmitted, type PluginTrust } from "./admit-image.ts";
import { vectorToBytes } from "./catalogue.ts";
import { checkContract, findCircle, refuseCircle, refuseOwner } from "./refuse-registration.ts";
import { signatureRefusal } from "./verify-signature.ts";

export interface Registered {
  pluginId: string;
  generation: string;
  isNew: boolean;
  /** `pending`: not routable until the platform has seen it healthy. */
  status: "pending" | "active" | "deprecated";
}

/** Whose plugin this is; undefined: nobody's yet. */
export async function findPluginOwner(db: PlatformDb, name: string): Promise<string | null | undefined> {
  const row = await db.platform((tx) => tx.selectFrom("plugins").select("owner_tenant_id").where("name", "=", name).executeTakeFirst());
  return row?.owner_tenant_id;
}

/**
 * Embeds first and writes after: no transaction waits for a model. A version that is known with another manifest or image is refused. A new one, and
 * one that comes back, is `pending`: `makeRoutable` is for who has seen it healthy.
 */
export async function registerPlugin(
  db: PlatformDb,
  embedder: Embedder,
  { manifest, endpoint, admission }: { manifest: Manifest; endpoint: string; admission: Admission },
  signal?: AbortSignal,
): Promise<Registered> {
  checkContract(manifest);
  const vectors = await embedder.embed(manifest.capabilities, signal);
  const parsed = semver.parse(manifest.version);
  if (!parsed) throw new Refusal("INVALID_INPUT", { message: "manifest.version is not a semantic version." });
  const versionSort = [parsed.major, parsed.minor, parsed.patch, parsed.prerelease.length === 0 ? 1 : 0];

  return db.platform(async (tx) => {
    await refuseCircle(tx, manifest);
    await refuseOwner(tx, manifest, admission.ownerTenantId);
    const plugin = await tx
      .insertInto("plugins")
      .values({
        id: newId("plugin"),
        name: manifest.name,
        category: manifest.category,
        owner_tenant_id: admission.ownerTenantId,
        owner_type: admission.ownerTenantId === null ? "first_party" : "enterprise_custom",
      })
      .onConflict((c) => c.column("name").doUpdateSet({ category: manifest.category }))
      .returning(["id", "status", "owner_tenant_id"])
      .executeTakeFirstOrThrow();
    // Two publishers may have come at once for one new name.
    if (plugin.owner_tenant_id !== admission.ownerTenantId) throw signatureRefusal("other_publisher");
    if (plugin.status === "sunset" || plugin.status === "retired")
      throw new Refusal("CONFLICT", { message: `${manifest.name} has reached its end and takes no new versions; publish under another name.` });
    const known = await tx
      .selectFrom("plugin_versions")
      .select(["id", "manifest", "status", "image", "admission"])
      .where("plugin_id", "=", plugin.id)
      .where("version", "=", manifest.version)
      .executeTakeFirst();
    if (known && canonical(known.manifest) !== canonical(manifest)) {
      throw new Refusal("CONFLICT", { message: `${manifest.name} ${manifest.version} is registered with another manifest; publish a new version.` });
    }
    const { signed } = admission;
    // Whoever only says that it is still there names no image.
    if (known?.image && signed.record.image !== null && known.image !== signed.record.image)
      throw new Refusal("CONFLICT", { message: `${manifest.name} ${manifest.version} is registered with another image; publish a new version.` });
    const versionId = known?.id ?? newId("version");
    const status = known?.status === "active" || known?.status === "deprecated" ? known.status : "pending";
    if (known) {
      const isBetter = known.admission === null || signed.record.image !== null;
      await tx
        .updateTable("plugin_versions")
        .set({ endpoint, status, ...(isBetter ? { image: signed.record.image, admission: JSON.stringify(signed) } : {}) })
        .where("id", "=", known.id)
        .execute();
    } else {
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
          status,
          image: signed.record.image,
          admission: JSON.stringify(signed),
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
    return { pluginId: plugin.id, generation: await nextGeneration(tx), isNew: !known, status };
  });
}

const PendingRow = v.object({ id: v.string(), manifest: Manifest, image: v.nullable(v.string()), admission: v.nullable(SignedAdmission) });

export interface Routable {
  generation: string;
  /** What it would have closed, had work been let come to it: the version is inactive instead. */
  circle: string[] | null;
}

/**
 * Lets work come to a version that the platform has just seen healthy, if what was accepted when it was registered still holds. Null: it is not
 * pending, or its signature does not hold: then it stays as it is.
 */
export async function makeRoutable(db: PlatformDb, trust: PluginTrust, name: string, version: string): Promise<Routable | null> {
  const raw = await db.platform((tx) =>
    tx
      .selectFrom("plugin_versions as pv")
      .innerJoin("plugins as p", "p.id", "pv.plugin_id")
      .select(["pv.id", "pv.manifest", "pv.image", "pv.admission"])
      .where("p.name", "=", name)
      .where("pv.version", "=", version)
      .where("pv.status", "=", "pending")
      .executeTakeFirst(),
  );
  const row = v.safeParse(PendingRow, raw);
  if (!row.success || !(await isStillAdmitted(trust, db, row.output.manifest, row.output.image, row.output.admission))) return null;
  return db.platform(async (tx) => {
    // When it was registered, the others of a circle may have been pending too.
    const circle = await findCircle(tx, row.output.manifest);
    const changed = await tx
      .updateTable("plugin_versions")
      .set(circle ? { status: "inactive" } : { status: "active", consecutive_unhealthy: 0 })
      .where("id", "=", row.output.id)
      .where("status", "=", "pending")
      // The very row that was checked.
      .where(sql<boolean>`manifest = ${JSON.stringify(row.output.manifest)}::jsonb`)
      .returning("id")
      .executeTakeFirst();
    return changed ? { generation: await nextGeneration(tx), circle } : null;
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

/** Tells everybody's caches that the catalogue is another one. */
export async function nextGeneration(tx: Tx): Promise<string> {
  const { rows } = await sql<{ generation: string }>`UPDATE registry_state SET generation = generation + 1 RETURNING generation::text AS generation`.execute(tx);
  return rows[0]?.generation ?? "0";
}

/** JSON with sorted keys: jsonb does not keep the order in which a manifest was written. */
function canonical(value: unknown): string {
  return JSON.stringify(value, (_, member: unknown) =>
    typeof member === "object" && member !== null && !Array.isArray(member) ? Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1))) : member,
  );
}
