import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { http, ok } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";
import { findErasure } from "../../shared/privacy/erasure-ledger.ts";
import { ErasureView, erasureView } from "../../shared/privacy/erasure-view.ts";

/** How far an erasure is, and its certificate: what went where, and where nothing was found afterwards. */
export default http({
  name: "erasure-status",
  summary: "Read an erasure's status and certificate.",
  route: "GET /v1/gdpr/erasure-requests/{id}",
  scope: "privacy:admin",
  needs: ["db"],
  params: v.object({ id: idParam("erasure") }),
  replies: { 200: ErasureView },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ params, caller, db }) {
    const row = await findErasure(db, caller.tenantId, params.id);
    if (!row) throw new Refusal("NOT_FOUND", { message: "There is no such erasure." });
    return ok(erasureView(row));
  },
});
