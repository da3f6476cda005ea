import { tripUnhealthy } from "../../shared/execution/circuit-breaker.ts";
import { cron } from "../../shared/host/declare.ts";
import { announceGeneration } from "../../shared/registry/catalogue.ts";
import { listProbeTargets, probeVersion } from "../../shared/registry/probe-plugin.ts";

/** Asks plugin versions how they are. Three times unhealthy in a row opens the circuit; a version that was not routable becomes so when it is first well. */
export default cron({
  name: "plugin-probe",
  summary: "Check the health of every plugin; let work come to those that are first seen healthy.",
  schedule: "30 * * * * *",
  needs: ["platformDb", "redis", "plugins", "pluginTrust", "telemetry"],
  scale: { min: 0, max: 1, concurrency: 1 },
  timeoutSec: 120,

  async run({ platformDb, redis, plugins, pluginTrust, telemetry, signal }) {
    const targets = await listProbeTargets(platformDb);
    await Promise.all(
      targets.map(async (target) => {
        const { health, generation, unhealthy, circle } = await probeVersion(platformDb, plugins, pluginTrust, target, signal);
        telemetry.probeFound(target.name, circle ? `inactive, for it closes ${circle.join(" → ")}` : health === "asleep" ? health : health.status);
        if (generation !== null) await announceGeneration(redis, generation);
        await tripUnhealthy(redis, target.name, unhealthy);
      }),
    );
  },
});
