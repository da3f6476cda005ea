import * as v from "valibot";
import { refuseUserChange } from "../../shared/access/refuse-user-change.ts";
import { tellCaches } from "../../shared/access/tell-caches.ts";
import { deleteUser } from "../../shared/access/users.ts";
import { Refusal } from "../../shared/errors.ts";
import { http, noContent } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";

/** Removes a user. After the 204 no request with a key of the user is accepted. */
export default http({
  name: "user-delete",
  summary: "Remove a user; the user's keys end at once.",
  route: "DELETE /v1/users/{id}",
  scope: "users:admin",
  liveKeyOnly: true,
  needs: ["db", "redis"],
  params: v.object({ id: idParam("user") }),
  replies: { 204: null },
  documented: { refusals: ["CONFLICT"] },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ params, caller, db, redis }) {
    const done = await deleteUser(db, caller, params.id);
    if (!done) throw new Refusal("NOT_FOUND", { message: "There is no such user." });
    if ("why" in done) throw refuseUserChange(done);
    await tellCaches(redis, caller.tenantId, done.generation, "The user is removed");
    return noContent();
  },
});
