import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { tripUnhealthy } from "../../shared/execution/circuit-breaker.ts";
import { http, ok } from "../../shared/host/declare.ts";
import { announceGeneration } from "../../shared/registry/catalogue.ts";
import { reportHealth } from "../../shared/registry/report-health.ts";
import { PluginName, Semver } from "../../shared/sdk/src/manifest.ts";

/** A plugin tells how it is, by component. */
export default http({
  name: "registry-report-health",
  summary: "Report a plugin's health by component.",
  route: "POST /internal/registry/{name}/health",
  scope: "service",
  needs: ["platformDb", "redis"],
  params: v.object({ name: PluginName }),
  body: v.strictObject({
    version: v.optional(Semver),
    status: v.picklist(["healthy", "degraded", "unhealthy"]),
    components: v.optional(v.record(v.pipe(v.string(), v.maxLength(60)), v.pipe(v.string(), v.maxLength(60))), {}),
    message: v.optional(v.nullable(v.pipe(v.string(), v.maxLength(500)))),
  }),
  replies: { 200: v.strictObject({ status: v.string() }) },
  scale: { min: 0, max: 2, concurrency: 20 },

  async handle({ params, body, platformDb, redis }) {
    const { version, ...health } = body;
    const reported = await reportHealth(platformDb, params.name, version ?? null, health);
    if (!reported) throw new Refusal("NOT_FOUND", { message: "There is no such plugin." });
    if (reported.generation !== null) await announceGeneration(redis, reported.generation);
    await tripUnhealthy(redis, params.name, reported.unhealthy);
    return ok({ status: body.status });
  },
});
