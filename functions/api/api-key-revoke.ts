import * as v from "valibot";
import { forgetKey } from "../../shared/access/admission.ts";
import { revokeApiKey } from "../../shared/access/api-keys.ts";
import { Refusal } from "../../shared/errors.ts";
import { http, noContent } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";

/** Revokes a key. After the 204 no request with it is accepted: PostgreSQL first, then a tombstone in the cache. */
export default http({
  name: "api-key-revoke",
  summary: "Revoke an API key at once.",
  route: "DELETE /v1/api-keys/{id}",
  scope: "keys:admin",
  needs: ["db", "redis"],
  params: v.object({ id: idParam("key") }),
  replies: { 204: null },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ params, caller, db, redis }) {
    const revoked = await revokeApiKey(db, caller.tenantId, caller, params.id);
    if (!revoked) throw new Refusal("NOT_FOUND", { message: "There is no such key." });
    await forgetKey(redis, revoked.hash).catch((cause: unknown) => {
      throw new Refusal("SERVICE_UNAVAILABLE", {
        message: "The key is revoked, but a cache could not be told and may accept it for up to five minutes. Send the call again to be sure.",
        retryAfterSec: 1,
        cause,
      });
    });
    return noContent();
  },
});
