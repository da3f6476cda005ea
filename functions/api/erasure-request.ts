import * as v from "valibot";
import { tellAccessChanged } from "../../shared/access/key-cache.ts";
import { Refusal } from "../../shared/errors.ts";
import { failpoint } from "../../shared/failpoint.ts";
import { accepted, http } from "../../shared/host/declare.ts";
import { idParam, publicId } from "../../shared/ids.ts";
import { requestErasure } from "../../shared/privacy/erasure-ledger.ts";
import { ErasureView, erasureView } from "../../shared/privacy/erasure-view.ts";
import { GUARD, mayActFor } from "../../shared/privacy/may-act-for.ts";

/** Notes that somebody is to be forgotten, and revokes their keys. `user-erase` does the rest; asking again finds the same erasure. */
export default http({
  name: "erasure-request",
  summary: "Have everything erased that is known of a user.",
  route: "POST /v1/gdpr/erasure-request",
  scope: "any",
  needs: ["db", "redis", "ring"],
  body: v.strictObject({ user_id: idParam("user") }),
  replies: { 202: ErasureView },
  documented: {
    guard: `${GUARD} An owner is erased by themself or another owner only. The user's keys are revoked with the answer, the one that asked among them.`,
    refusals: ["NOT_FOUND", "CONFLICT"],
    replyHeaders: { Location: "Where the certificate will be." },
  },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ body, caller, request, db, redis, ring }) {
    mayActFor(caller, body.user_id);
    const erasure = await requestErasure(db, caller.tenantId, body.user_id, caller);
    if (!erasure) throw new Refusal("NOT_FOUND", { message: "There is no such user." });
    if (erasure === "over") throw new Refusal("AUTH_INVALID");
    if (erasure === "owners_only") throw new Refusal("FORBIDDEN_SCOPE", { message: "Only an owner can have an owner erased." });
    if (erasure === "last_owner") throw new Refusal("CONFLICT", { message: "This user is the tenant's only owner: make somebody else an owner first." });
    FAILPOINT: await failpoint("erasure.after_commit");
    // A cache that cannot be told now is told before anything is deleted.
    if (erasure.generation !== null) await tellAccessChanged(redis, caller.tenantId, erasure.generation).catch(() => {});
    if (erasure.row.state !== "completed") await ring.erasure(erasure.id, request.traceparent);
    return accepted(erasureView(erasure.row), { location: `/v1/gdpr/erasure-requests/${publicId("erasure", erasure.id)}` });
  },
});
