/** An erasure as the outside sees it. */
import * as v from "valibot";
import { publicId } from "../ids.ts";
import type { ErasureRow } from "./erasure-ledger.ts";

const Time = v.pipe(v.string(), v.isoTimestamp());

/** GDPR, article 12: within a month. It takes a minute as a rule. */
const DUE_DAYS = 30;

export const ErasureView = v.strictObject({
  erasure_id: v.string(),
  status: v.picklist(["queued", "running", "completed"]),
  requested_at: Time,
  due_by: Time,
  completed_at: v.nullable(Time),
  erased: v.pipe(v.record(v.string(), v.number()), v.description("What went so far, by where it stood.")),
  certificate: v.nullable(
    v.strictObject({
      subject_sha256: v.pipe(v.string(), v.description("SHA-256 over tenant and user: who knows both ids can tell whose certificate this is.")),
      verified_at: Time,
      searched: v.pipe(v.array(v.string()), v.description("Where nothing was found afterwards.")),
    }),
  ),
});

export function erasureView(row: ErasureRow): v.InferOutput<typeof ErasureView> {
  return {
    erasure_id: publicId("erasure", row.id),
    status: row.state,
    requested_at: row.requested_at.toISOString(),
    due_by: new Date(row.requested_at.getTime() + DUE_DAYS * 86_400_000).toISOString(),
    completed_at: row.completed_at?.toISOString() ?? null,
    erased: row.counts,
    certificate: row.certificate,
  };
}
