import * as v from "valibot";
import { apiKeyView, RotatedApiKey, rotateApiKey } from "../../shared/access/api-keys.ts";
import { CACHE_MS, tellAccessChanged } from "../../shared/access/key-cache.ts";
import { Refusal } from "../../shared/errors.ts";
import { created, http } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";

const MAX_GRACE_SEC = 86_400;

/** Replaces a key by a new one with the same rights. The old one works until the grace period is over. */
export default http({
  name: "api-key-rotate",
  summary: "Replace an API key; the old one works for a grace period of 24 hours unless said.",
  route: "POST /v1/api-keys/{id}/rotate",
  scope: "keys:admin",
  needs: ["db", "redis"],
  params: v.object({ id: idParam("key") }),
  body: v.strictObject({ grace_seconds: v.optional(v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(MAX_GRACE_SEC)), MAX_GRACE_SEC) }),
  replies: { 201: RotatedApiKey },
  documented: { refusals: ["CONFLICT"] },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ params, body, caller, db, redis }) {
    const rotated = await rotateApiKey(db, caller, params.id, body.grace_seconds);
    if (rotated === null) throw new Refusal("NOT_FOUND", { message: "There is no such key." });
    if (rotated === "over") throw new Refusal("CONFLICT", { message: "The key is revoked, expired, or was rotated before." });
    if (rotated === "excess")
      throw new Refusal("FORBIDDEN_SCOPE", { message: "A key can only rotate keys that may do no more than itself, and for no longer; a test key only test keys." });
    // The new key must reach the caller even when the caches cannot be told: it is shown this once, with how long the old one may work.
    const worksUntilMs = await tellAccessChanged(redis, caller.tenantId, rotated.generation).then(
      () => rotated.oldKeyEnds.getTime(),
      () => Math.max(rotated.oldKeyEnds.getTime(), Date.now() + CACHE_MS),
    );
    return created({ ...apiKeyView(rotated.row), key: rotated.minted.plaintext, old_key_works_until: new Date(worksUntilMs).toISOString() });
  },
});
