import * as v from "valibot";
import { SecretView, secretView } from "../../shared/access/secret-view.ts";
import { Refusal } from "../../shared/errors.ts";
import { http } from "../../shared/host/declare.ts";
import { visiblePlugin } from "../../shared/registry/visible-plugin.ts";
import { PluginName, SecretName } from "../../shared/sdk/src/manifest.ts";

const MAX_SECRET_BYTES = 16 * 1024;

/** Sets a secret that the plugin's manifest declares. It is never given back, only to that plugin, inside one execution's request. */
export default http({
  name: "secret-put",
  summary: "Set or replace a secret of a plugin; it can be written, not read.",
  route: "PUT /v1/plugins/{name}/secrets/{secret_name}",
  scope: "secrets:admin",
  liveKeyOnly: true,
  needs: ["db", "redis", "secrets"],
  params: v.object({ name: PluginName, secret_name: SecretName }),
  body: v.strictObject({
    value: v.pipe(v.string(), v.minLength(1, "must not be empty"), v.maxBytes(MAX_SECRET_BYTES, `must have at most ${MAX_SECRET_BYTES} bytes`), v.metadata({ writeOnly: true })),
  }),
  replies: { 200: SecretView, 201: SecretView },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ params, body, caller, request, db, redis, secrets }) {
    const { name, manifest } = await visiblePlugin(db, redis, request.admission?.registryGeneration, caller.tenantId, params.name);
    const declared = manifest.required_secret_names;
    if (!declared.includes(params.secret_name)) {
      const known = declared.length === 0 ? "it takes none" : `it takes ${declared.join(", ")}`;
      throw new Refusal("INVALID_INPUT", { message: `${name} declares no secret named ${params.secret_name}; ${known}.`, details: { declared_names: declared } });
    }
    const stored = await secrets.put(db, caller.tenantId, caller, name, params.secret_name, body.value);
    return { status: stored.isNew ? 201 : 200, body: secretView(stored) };
  },
});
