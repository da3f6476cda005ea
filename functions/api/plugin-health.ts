import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { lookAtCircuits } from "../../shared/execution/circuit-breaker.ts";
import { http, ok } from "../../shared/host/declare.ts";
import { findHealth } from "../../shared/registry/plugin-health.ts";
import { Circuit } from "../../shared/registry/plugin-view.ts";
import { PluginName } from "../../shared/sdk/src/manifest.ts";

/** A plugin's health by component, as the probe last saw it, and its circuit as it is now. */
export default http({
  name: "plugin-health",
  summary: "Read a plugin's health by component.",
  route: "GET /v1/plugins/{name}/health",
  scope: "plugins:read",
  needs: ["db", "redis"],
  params: v.object({ name: PluginName }),
  replies: {
    200: v.strictObject({
      plugin: v.string(),
      version: v.string(),
      status: v.picklist(["healthy", "degraded", "unhealthy", "unknown"]),
      components: v.record(v.string(), v.string()),
      circuit: Circuit,
      message: v.nullable(v.string()),
      checked_at: v.nullable(v.string()),
    }),
  },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ params, caller, db, redis }) {
    const health = await findHealth(db, caller.tenantId, params.name);
    if (!health) throw new Refusal("NOT_FOUND", { message: `There is no plugin named ${params.name}.` });
    const circuits = await lookAtCircuits(redis, [health]);
    return ok({ ...health, circuit: circuits?.[0] ?? "closed" });
  },
});
