import * as v from "valibot";
import { Scope } from "../../shared/access/caller.ts";
import { scopesOf } from "../../shared/access/roles.ts";
import { findUser, UserView, userView } from "../../shared/access/users.ts";
import { Refusal } from "../../shared/errors.ts";
import { http, ok } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";

const UserDetail = v.strictObject({ ...UserView.entries, scopes: v.pipe(v.array(Scope), v.description("All that a key of this user may ever have.")) });

export default http({
  name: "user-detail",
  summary: "One user, and what the role allows.",
  route: "GET /v1/users/{id}",
  scope: "users:admin",
  needs: ["db"],
  params: v.object({ id: idParam("user") }),
  replies: { 200: UserDetail },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ params, caller, db }) {
    const user = await findUser(db, caller.tenantId, params.id);
    if (!user) throw new Refusal("NOT_FOUND", { message: "There is no such user." });
    return ok({ ...userView(user), scopes: scopesOf(user.role) });
  },
});
