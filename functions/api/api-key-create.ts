import * as v from "valibot";
import { ApiKeyWithPlaintext, apiKeyView, createApiKey, type NotMinted } from "../../shared/access/api-keys.ts";
import { Environment, Scope } from "../../shared/access/caller.ts";
import { Preset, scopesOfPreset } from "../../shared/access/roles.ts";
import { Refusal } from "../../shared/errors.ts";
import { created, http } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";

const NewKey = v.pipe(
  v.strictObject({
    description: v.optional(v.pipe(v.string(), v.maxLength(200, "must have at most 200 characters")), ""),
    scopes: v.optional(v.pipe(v.array(Scope), v.minLength(1, "must name at least one scope"), v.maxLength(50))),
    preset: v.optional(Preset),
    environment: v.optional(Environment, "live"),
    /** Absent: the caller's own. Null: a service account, which no role bounds and no user's end ends. */
    user_id: v.optional(v.nullable(idParam("user"))),
    expires_at: v.optional(
      v.pipe(
        v.string(),
        v.isoTimestamp("must be a time such as 2027-01-31T12:00:00Z"),
        v.transform((text) => new Date(text)),
        v.check((at) => at.getTime() > Date.now(), "must be in the future"),
      ),
    ),
  }),
  v.check((key) => (key.scopes === undefined) !== (key.preset === undefined), "needs either `scopes` or `preset`"),
  v.metadata({ oneOf: [{ required: ["scopes"] }, { required: ["preset"] }] }),
);

/** Mints an API key for the caller's tenant. The plaintext leaves the system once, in this reply. */
export default http({
  name: "api-key-create",
  summary: "Create an API key; its text is shown once.",
  route: "POST /v1/api-keys",
  scope: "keys:admin",
  needs: ["db"],
  body: NewKey,
  replies: { 201: ApiKeyWithPlaintext },
  documented: {
    refusals: ["NOT_FOUND"],
    requestExamples: {
      reader: { summary: "A key that can only read tasks", value: { description: "dashboard", scopes: ["tasks:read"] } },
      service: { summary: "A key of a service account that submits tasks", value: { description: "nightly build", preset: "submit", user_id: null } },
    },
  },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ body, caller, db }) {
    const scopes = [...new Set(body.preset ? scopesOfPreset(body.preset) : body.scopes)];
    const excess = scopes.filter((scope) => !caller.scopes.includes(scope));
    if (excess.length > 0)
      throw new Refusal("FORBIDDEN_SCOPE", { message: `A key can only mint keys with scopes of its own; it lacks ${excess.join(", ")}.`, details: { missing_scopes: excess } });
    if (caller.environment === "test" && body.environment === "live") throw new Refusal("FORBIDDEN_SCOPE", { message: "A test key can only mint test keys." });
    const made = await createApiKey(db, caller, {
      userId: body.user_id === undefined ? caller.userId : body.user_id,
      environment: body.environment,
      scopes,
      description: body.description,
      expiresAt: body.expires_at ?? null,
    });
    if ("why" in made) throw refusalOf(made);
    return created({ ...apiKeyView(made.row), key: made.minted.plaintext });
  },
});

function refusalOf(not: NotMinted): Refusal {
  switch (not.why) {
    case "over":
      return new Refusal("AUTH_INVALID");
    case "no_user":
      return new Refusal("NOT_FOUND", { message: "There is no such user." });
    case "owners_only":
      return new Refusal("FORBIDDEN_SCOPE", { message: "Only an owner can make keys for an owner." });
    case "outlives":
      return new Refusal("FORBIDDEN_SCOPE", { message: `A key can only mint keys that end no later than itself: ${not.ends.toISOString()}.` });
    case "beyond_role":
      return new Refusal("FORBIDDEN_SCOPE", { message: `The role ${not.role} does not allow ${not.excess.join(", ")}.`, details: { missing_scopes: not.excess } });
  }
}
