/** What a capability opens: always the token's own tenant, task and plugin, and only while the lease in it lives. */
import { createHash } from "node:crypto";
import * as v from "valibot";
import type { Capability } from "../access/capability-token.ts";
import { sqlState, type TenantDb } from "../db/database.ts";
import { Refusal } from "../errors.ts";
import { failpoint } from "../failpoint.ts";
import { asId, newId, publicId, type TenantId } from "../ids.ts";
import type { ArtifactRef } from "../sdk/src/envelopes.ts";
import { timeLimit } from "../sdk/src/time-limit.ts";
import { artifactKey } from "../storage/artifact-name.ts";
import type { ObjectStore } from "../storage/object-store.ts";
import type { Telemetry } from "../telemetry/domain-events.ts";

/** Media types that a browser would not run; anything else is served as bytes. */
const MEDIA_TYPES = /^(text\/(plain|markdown|csv|x-diff)|application\/(json|sarif\+json|pdf|zip|xml|yaml|octet-stream)|image\/(png|jpeg|webp|gif))$/;
const MAX_ARTIFACTS = 100;

export function requireScope(capability: Capability, scope: Capability["scopes"][number]): void {
  if (!capability.scopes.includes(scope))
    throw new Refusal("FORBIDDEN_SCOPE", { message: `The plugin's manifest does not declare the scope ${scope}.`, details: { required_scope: scope } });
}

const LeaseRow = v.object({ cancel_requested: v.boolean() });

/** Refuses when the lease that the token names is over: its task or its step has ended, or belongs to another attempt. */
export async function checkLease(db: TenantDb, tenantId: TenantId, capability: Capability): Promise<{ cancelRequested: boolean }> {
  const [row] = await db.call("SELECT cancel_requested FROM check_lease($1, $2, $3, $4)", [tenantId, capability.task, capability.lease, capability.step]);
  if (!row) throw new Refusal("CONFLICT", { message: "This execution is over; its capability ended with it." });
  return { cancelRequested: v.parse(LeaseRow, row).cancel_requested };
}

/** The plugin waits for the answer 30 seconds; what the store has not taken by then is kept here. */
const PUT_TIMEOUT_MS = 12_000;
const MAX_WAITING_BYTES = { task: 32 * 1024 * 1024, tenant: 256 * 1024 * 1024 };
const TOO_MUCH_WAITS = "AAU01";

/**
 * The object first, then the row: a row never points at nothing. The same name again replaces both. While the object store does not
 * take it, the file waits in PostgreSQL, in the transaction of its row, and `wake` uploads it later.
 */
export async function storeArtifact(
  { db, storage, telemetry }: { db: TenantDb; storage: ObjectStore; telemetry: Pick<Telemetry, "degraded"> },
  capability: Capability,
  file: { name: string; mediaType: string; bytes: Uint8Array },
): Promise<{ ref: ArtifactRef; isDelayed: boolean }> {
  const tenantId = asId("tenant", capability.tenant);
  await checkLease(db, tenantId, capability);
  const [essence = ""] = file.mediaType
    .toLowerCase()
    .split(";")
    .map((part) => part.trim());
  const mediaType = MEDIA_TYPES.test(essence) ? essence : "application/octet-stream";
  const key = artifactKey(capability.tenant, capability.plugin, capability.task, capability.step, file.name);
  const sha256 = createHash("sha256").update(file.bytes).digest("hex");
  const isDelayed = await storage.put(key, file.bytes, mediaType, timeLimit(PUT_TIMEOUT_MS)).then(
    () => false,
    (error: unknown) => {
      telemetry.degraded("artifact store", error);
      return true;
    },
  );
  FAILPOINT: await failpoint("artifact.after_upload");
  const values = [
    tenantId,
    capability.task,
    capability.lease,
    newId("artifact"),
    capability.plugin,
    file.name,
    mediaType,
    file.bytes.byteLength,
    sha256,
    key,
    MAX_ARTIFACTS,
    capability.step,
  ];
  const put = "put_artifact($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)";
  const [row] = isDelayed
    ? await db
        .call<{ id: string }>(`SELECT mark_pending(${put}, $13, $14, $15) AS id`, [...values, Buffer.from(file.bytes), MAX_WAITING_BYTES.task, MAX_WAITING_BYTES.tenant])
        .catch(refuseTooMuch)
    : await db.call<{ id: string }>(`SELECT mark_stored(${put}) AS id`, values);
  if (!row?.id) throw new Refusal("CONFLICT", { message: `This execution is over, or has stored ${MAX_ARTIFACTS} artifacts already.` });
  return { ref: { artifact_id: publicId("artifact", row.id), name: file.name, media_type: mediaType, size_bytes: file.bytes.byteLength, sha256 }, isDelayed };
}

function refuseTooMuch(cause: unknown): never {
  if (sqlState(cause) !== TOO_MUCH_WAITS) throw cause;
  throw new Refusal("SERVICE_UNAVAILABLE", { message: "The artifact store cannot be reached, and too much waits for it already.", retryAfterSec: 30, cause });
}

/** Only what the same plugin stored for the same task; of several steps that it ran, this one's comes first. */
export async function readOwnArtifact({ db, storage }: { db: TenantDb; storage: ObjectStore }, capability: Capability, name: string) {
  const tenantId = asId("tenant", capability.tenant);
  await checkLease(db, tenantId, capability);
  const row = await db.tenant(tenantId, (tx) =>
    tx
      .selectFrom("artifacts as a")
      .leftJoin("artifact_uploads as u", "u.artifact_id", "a.id")
      .select(["a.storage_key", "a.media_type", "a.sha256", "u.bytes"])
      .where("a.tenant_id", "=", tenantId)
      .where("a.task_id", "=", capability.task)
      .where("a.plugin_name", "=", capability.plugin)
      .where("a.name", "=", name)
      .orderBy((eb) => eb("a.step", "=", capability.step), "desc")
      .orderBy("a.created_at")
      .limit(1)
      .executeTakeFirst(),
  );
  if (!row) return null;
  const bytes = row.bytes ?? (await storage.get(row.storage_key, timeLimit(PUT_TIMEOUT_MS)).catch(storeAway));
  if (bytes === null) return null;
  if (createHash("sha256").update(bytes).digest("hex") !== row.sha256) throw storeAway(new Error("the object store holds other bytes than were stored"));
  return { bytes, mediaType: row.media_type };
}

function storeAway(cause: unknown): never {
  throw new Refusal("SERVICE_UNAVAILABLE", { message: "The artifact store cannot be reached.", retryAfterSec: 1, cause });
}

const ReportRow = v.object({ held: v.boolean(), cancel_requested: v.boolean() });

/** Appends one progress event; true when the plugin should stop. */
export async function appendReport(db: TenantDb, capability: Capability, report: { node: string; message: string }): Promise<boolean> {
  const [row] = await db.call("SELECT held, cancel_requested FROM append_progress($1, $2, $3, $4, $5)", [
    capability.tenant,
    capability.task,
    capability.lease,
    JSON.stringify([{ type: "report", data: { step: capability.step, ...report } }]),
    capability.step,
  ]);
  const { held, cancel_requested } = v.parse(ReportRow, row);
  if (!held) throw new Refusal("CONFLICT", { message: "This execution is over; its capability ended with it." });
  return cancel_requested;
}
