import * as v from "valibot";
import { revokeApiKey } from "../../shared/access/api-keys.ts";
import { tellCaches } from "../../shared/access/tell-caches.ts";
import { Refusal } from "../../shared/errors.ts";
import { http, noContent } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";
import { cancelTasksOfKey } from "../../shared/tasks/cancel-tasks-of-key.ts";

/**
 * Revokes a key. After the 204 no request with it is accepted: PostgreSQL first, then the caches' generation. Tasks that it submitted before
 * were accepted by a good key and run to their end, unless `cascade` asks for theirs too.
 */
export default http({
  name: "api-key-revoke",
  summary: "Revoke an API key at once; with `cascade=true` cancel its tasks too.",
  route: "DELETE /v1/api-keys/{id}",
  scope: "keys:admin",
  needs: ["db", "redis", "signals"],
  params: v.object({ id: idParam("key") }),
  query: v.strictObject({ cascade: v.optional(v.picklist(["true", "false"]), "false") }),
  replies: { 204: null },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ params, query, caller, db, redis, signals }) {
    const revoked = await revokeApiKey(db, caller.tenantId, caller, params.id);
    if (!revoked) throw new Refusal("NOT_FOUND", { message: "There is no such key." });
    if (revoked === "over") throw new Refusal("AUTH_INVALID");
    if (revoked === "live") throw new Refusal("FORBIDDEN_SCOPE", { message: "A test key can only revoke test keys." });
    if (revoked === "owners_only") throw new Refusal("FORBIDDEN_SCOPE", { message: "Only an owner can revoke an owner's key." });
    await tellCaches(redis, caller.tenantId, revoked.generation, "The key is revoked");
    if (query.cascade === "true" && !(await cancelTasksOfKey(db, signals, caller.tenantId, params.id)))
      throw new Refusal("SERVICE_UNAVAILABLE", { message: "The key is revoked, and many of its tasks are cancelled. Send the call again for the rest.", retryAfterSec: 1 });
    return noContent();
  },
});
