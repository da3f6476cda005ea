import * as v from "valibot";
import { ApiKeyWithPlaintext, apiKeyView, createApiKey } from "../../shared/access/api-keys.ts";
import { Environment, Scope } from "../../shared/access/caller.ts";
import { Refusal } from "../../shared/errors.ts";
import { created, http } from "../../shared/host/declare.ts";

const NewKey = v.strictObject({
  description: v.optional(v.pipe(v.string(), v.maxLength(200, "must have at most 200 characters")), ""),
  scopes: v.pipe(v.array(Scope), v.minLength(1, "must name at least one scope"), v.maxLength(50)),
  environment: v.optional(Environment, "live"),
  expires_at: v.optional(
    v.pipe(
      v.string(),
      v.isoTimestamp("must be a time such as 2027-01-31T12:00:00Z"),
      v.transform((text) => new Date(text)),
      v.check((at) => at.getTime() > Date.now(), "must be in the future"),
    ),
  ),
});

/** Mints an API key for the caller's tenant. The plaintext leaves the system once, in this reply. */
export default http({
  name: "api-key-create",
  summary: "Create an API key; its text is shown once.",
  route: "POST /v1/api-keys",
  scope: "keys:admin",
  needs: ["db"],
  body: NewKey,
  replies: { 201: ApiKeyWithPlaintext },
  documented: { requestExamples: { reader: { summary: "A key that can only read tasks", value: { description: "dashboard", scopes: ["tasks:read"] } } } },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ body, caller, db }) {
    const excess = body.scopes.filter((scope) => !caller.scopes.includes(scope));
    if (excess.length > 0)
      throw new Refusal("FORBIDDEN_SCOPE", { message: `A key can only mint keys with scopes of its own; it lacks ${excess.join(", ")}.`, details: { missing_scopes: excess } });
    if (caller.environment === "test" && body.environment === "live") throw new Refusal("FORBIDDEN_SCOPE", { message: "A test key can only mint test keys." });
    const { row, minted } = await createApiKey(db, caller.tenantId, caller, {
      userId: caller.userId,
      environment: body.environment,
      scopes: [...new Set(body.scopes)],
      description: body.description,
      expiresAt: body.expires_at ?? null,
    });
    return created({ ...apiKeyView(row), key: minted.plaintext });
  },
});
