import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { http, ok } from "../../shared/host/declare.ts";
import { configIssues } from "../../shared/registry/config-issues.ts";
import { GivenConfig, PluginConfigView, putPluginConfig } from "../../shared/registry/plugin-config.ts";
import { visiblePlugin } from "../../shared/registry/visible-plugin.ts";
import { PluginName } from "../../shared/sdk/src/manifest.ts";

/** Replaces the tenant's settings for one plugin, once the plugin's own schema takes them. Tasks that are claimed afterwards get them. */
export default http({
  name: "plugin-config-put",
  summary: "Replace your configuration of a plugin; the next task gets it.",
  route: "PUT /v1/plugins/{name}/config",
  scope: "plugins:admin",
  liveKeyOnly: true,
  needs: ["db", "redis"],
  params: v.object({ name: PluginName }),
  headers: { "If-Match": 'The version that is to be replaced, as GET gives it in `ETag`; `"0"` where nothing was set. Without it the last one wins.' },
  body: v.strictObject({ config: GivenConfig }),
  replies: { 200: PluginConfigView },
  documented: {
    refusals: ["CONFLICT"],
    replyHeaders: { ETag: "The configuration's version." },
    requestExamples: { limit: { summary: "A setting of code-review", value: { config: { coding_standards: { max_line_length: 120 } } } } },
  },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ params, body, caller, request, db, redis }) {
    const version = readIfMatch(request.header("if-match"));
    const { name, manifest } = await visiblePlugin(db, redis, request.admission?.registryGeneration, caller.tenantId, params.name);
    const issues = manifest.config_schema ? configIssues(manifest.config_schema, body.config) : [];
    const [first] = issues;
    if (first) throw new Refusal("INVALID_INPUT", { message: `${name} does not take this configuration: ${first.path}: ${first.message}`, details: { issues } });
    const put = await putPluginConfig(db, caller.tenantId, caller, name, body.config, version);
    if (!put) throw new Refusal("CONFLICT", { message: "The configuration was changed in the meantime; read it again." });
    return ok(put, { etag: `"${put.version}"` });
  },
});

function readIfMatch(header: string | undefined): number | null {
  if (header === undefined) return null;
  const match = /^"(\d{1,15})"$/.exec(header.trim());
  if (!match) throw new Refusal("INVALID_INPUT", { message: 'If-Match must be one version such as "3".' });
  return Number(match[1]);
}
