import * as v from "valibot";
import { http, ok } from "../../shared/host/declare.ts";
import { announceGeneration } from "../../shared/registry/catalogue.ts";
import { deprecatePlugin, LifecycleView, restorePlugin } from "../../shared/registry/plugin-lifecycle.ts";
import { PluginName } from "../../shared/sdk/src/manifest.ts";

/** It is shown and never fetched. */
const isWebAddress = (text: string) => {
  const url = URL.canParse(text) ? new URL(text) : null;
  return url !== null && /^https?:$/.test(url.protocol) && url.username === "" && url.password === "";
};

/** Announces a plugin's end, or takes the announcement back. What follows at the sunset is the work of plugin-lifecycle. */
export default http({
  name: "registry-lifecycle",
  summary: "Deprecate a plugin, or take that back.",
  route: "POST /internal/registry/{name}/lifecycle",
  scope: "service",
  needs: ["platformDb", "redis"],
  params: v.object({ name: PluginName }),
  body: v.strictObject({
    status: v.picklist(["deprecated", "active"]),
    sunset_at: v.optional(v.pipe(v.string(), v.isoTimestamp(), v.description("At least 90 days ahead; 90 days unless said."))),
    migration_guide_url: v.optional(v.pipe(v.string(), v.maxLength(2048), v.check(isWebAddress, "must be an http or https address without credentials"))),
  }),
  replies: { 200: LifecycleView },
  documented: { refusals: ["NOT_FOUND", "CONFLICT"] },
  scale: { min: 0, max: 2, concurrency: 10 },

  async handle({ params, body, platformDb, redis }) {
    const sunsetAt = body.sunset_at === undefined ? null : new Date(body.sunset_at);
    const { view, generation } =
      body.status === "active"
        ? await restorePlugin(platformDb, params.name)
        : await deprecatePlugin(platformDb, params.name, { sunsetAt, guideUrl: body.migration_guide_url ?? null });
    await announceGeneration(redis, generation);
    return ok(view);
  },
});
