import * as v from "valibot";
import { refuseUserChange } from "../../shared/access/refuse-user-change.ts";
import { Role } from "../../shared/access/roles.ts";
import { tellCaches } from "../../shared/access/tell-caches.ts";
import { Email, UserView, updateUser, userView } from "../../shared/access/users.ts";
import { Refusal } from "../../shared/errors.ts";
import { http, ok } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";

/** Changes a user's role or address. What a lower role does not allow, the user's keys lose with this reply; what a higher one allows again, they get back. */
export default http({
  name: "user-update",
  summary: "Change a user's role or address; keys lose at once what a lower role does not allow.",
  route: "PATCH /v1/users/{id}",
  scope: "users:admin",
  liveKeyOnly: true,
  needs: ["db", "redis"],
  params: v.object({ id: idParam("user") }),
  body: v.pipe(
    v.strictObject({ role: v.optional(Role), email: v.optional(Email) }),
    v.check((change) => change.role !== undefined || change.email !== undefined, "must change something"),
    v.metadata({ anyOf: [{ required: ["role"] }, { required: ["email"] }], examples: [{ role: "viewer" }] }),
  ),
  replies: { 200: UserView },
  documented: { refusals: ["CONFLICT"] },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ params, body, caller, db, redis }) {
    const done = await updateUser(db, caller, params.id, body);
    if (!done) throw new Refusal("NOT_FOUND", { message: "There is no such user." });
    if ("why" in done) throw refuseUserChange(done);
    await tellCaches(redis, caller.tenantId, done.generation, "The user is changed");
    return ok(userView(done.row));
  },
});
