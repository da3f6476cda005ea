import * as v from "valibot";
import { lookAtCircuits } from "../../shared/execution/circuit-breaker.ts";
import { http, ok } from "../../shared/host/declare.ts";
import { PluginDetail, pluginDetail } from "../../shared/registry/plugin-view.ts";
import { findSandbox, findSubscriptions } from "../../shared/registry/subscriptions.ts";
import { visiblePlugin } from "../../shared/registry/visible-plugin.ts";
import { PluginName } from "../../shared/sdk/src/manifest.ts";

/** One plugin: what it can do, what it needs, what it costs in tokens at most. */
export default http({
  name: "plugin-detail",
  summary: "Read one plugin: capabilities, requirements, budget.",
  route: "GET /v1/plugins/{name}",
  scope: "plugins:read",
  needs: ["db", "redis"],
  params: v.object({ name: PluginName }),
  replies: { 200: PluginDetail },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ params, caller, request, db, redis }) {
    const [entry, subscribed, sandbox] = await Promise.all([
      visiblePlugin(db, redis, request.admission?.registryGeneration, caller.tenantId, params.name),
      findSubscriptions(db, caller.tenantId),
      findSandbox(db, caller.tenantId, params.name),
    ]);
    const circuits = await lookAtCircuits(redis, [{ plugin: entry.name, version: entry.version }]);
    return ok(pluginDetail(entry, subscribed.has(entry.name), circuits?.[0] ?? "closed", sandbox));
  },
});
