import { tripUnhealthy } from "../../shared/execution/circuit-breaker.ts";
import { cron } from "../../shared/host/declare.ts";
import { announceGeneration } from "../../shared/registry/catalogue.ts";
import { listProbeTargets, probePlugin } from "../../shared/registry/probe-plugin.ts";
import { reportHealth } from "../../shared/registry/register-plugin.ts";

/** Asks every live plugin version how it is. The call wakes a sleeping plugin, so it runs seldom; sleeping is not unhealthy. */
export default cron({
  name: "plugin-probe",
  summary: "Check the health of every plugin.",
  schedule: "0 */5 * * * *",
  needs: ["platformDb", "redis", "plugins", "telemetry"],
  scale: { min: 0, max: 1, concurrency: 1 },
  timeoutSec: 120,

  async run({ platformDb, redis, plugins, telemetry, signal }) {
    const targets = await listProbeTargets(platformDb);
    await Promise.all(
      targets.map(async (target) => {
        const health = await probePlugin(plugins, target.endpoint, signal);
        telemetry.probeFound(target.name, health.status);
        const reported = await reportHealth(platformDb, target.name, target.version, health);
        if (reported?.generation) await announceGeneration(redis, reported.generation);
        await tripUnhealthy(redis, target.name, reported?.unhealthy ?? []);
      }),
    );
  },
});
