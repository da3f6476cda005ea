import * as v from "valibot";
import { refuseUserChange } from "../../shared/access/refuse-user-change.ts";
import { Role } from "../../shared/access/roles.ts";
import { createUser, Email, UserView, userView } from "../../shared/access/users.ts";
import { created, http } from "../../shared/host/declare.ts";

/** Adds a user to the caller's tenant. A user acts through keys: make one with `POST /v1/api-keys` and the user's id. */
export default http({
  name: "user-create",
  summary: "Add a user with a role.",
  route: "POST /v1/users",
  scope: "users:admin",
  liveKeyOnly: true,
  needs: ["db"],
  body: v.strictObject({ email: v.pipe(Email, v.metadata({ examples: ["developer@example.com"] })), role: v.optional(Role, "developer") }),
  replies: { 201: UserView },
  documented: { refusals: ["CONFLICT"], requestExamples: { viewer: { summary: "Somebody who only looks", value: { email: "auditor@example.com", role: "viewer" } } } },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ body, caller, db }) {
    const made = await createUser(db, caller, body);
    if ("why" in made) throw refuseUserChange(made);
    return created(userView(made));
  },
});
