import { forgetChainedSteps } from "../../shared/execution/begin-chained-step.ts";
import { cron } from "../../shared/host/declare.ts";
import { announceGeneration } from "../../shared/registry/catalogue.ts";
import { advancePlugins } from "../../shared/registry/plugin-lifecycle.ts";

/** At its sunset a deprecated plugin takes no new tasks and its subscriptions end; when its last task is over, it is retired. */
export default cron({
  name: "plugin-lifecycle",
  summary: "End plugins whose time has come; retire those whose last task is over.",
  schedule: "45 * * * * *",
  needs: ["platformDb", "redis", "telemetry"],
  scale: { min: 0, max: 1, concurrency: 1 },

  async run({ platformDb, redis, telemetry }) {
    for (const step of await advancePlugins(platformDb)) {
      telemetry.pluginMoved(step.name, step.status, step.subscriptions_ended);
      await announceGeneration(redis, step.generation);
    }
    await forgetChainedSteps(platformDb);
  },
});
