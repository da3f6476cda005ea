import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { beginChainedStep } from "../../shared/execution/begin-chained-step.ts";
import { carryOutChainedStep, endedLine } from "../../shared/execution/carry-out-chained-step.ts";
import { requireScope } from "../../shared/execution/scoped-access.ts";
import { gateway } from "../../shared/host/declare.ts";
import { readJson } from "../../shared/host/request-body.ts";
import { type ChainLine, ChainRequest } from "../../shared/sdk/src/chaining.ts";
import { PluginName } from "../../shared/sdk/src/manifest.ts";

/** The plugin's client must not take a long silence for a broken connection. */
const ALIVE_MS = 5_000;

/** Lets a plugin have a part of its work done by another one, which it names among its dependencies. Time, money and end are those of its own task. */
export default gateway({
  name: "chain-gateway",
  summary: "Calls from plugin to plugin, as steps of the caller's task.",
  audience: "chain",
  needs: ["db", "redis", "signals", "plugins", "capabilities", "upstream", "secrets", "telemetry"],
  scale: { min: 0, max: 20, concurrency: 100 },
  timeoutSec: 600,
  maxBodyBytes: 12 * 1024 * 1024,

  routes: {
    "POST /internal/chain/{plugin}": async ({ capability, params, info, ...doors }) => {
      requireScope(capability, "plugin:chain");
      if (!v.is(PluginName, params.plugin)) throw new Refusal("NOT_FOUND", { message: "There is no such plugin." });
      const asked = readJson(ChainRequest, info.bodyBytes);
      const begun = await beginChainedStep(doors, capability, params.plugin, asked, info.traceparent);
      const write = (line: ChainLine) => new TextEncoder().encode(`${JSON.stringify(line)}\n`);
      const headers = { "content-type": "application/x-ndjson", "cache-control": "no-store" };
      if (begun.kind === "ended") return new Response(write(endedLine(begun.record, 0)), { headers });

      const hangUp = new AbortController();
      const leaving = AbortSignal.any([info.signal, hangUp.signal]);
      const body = new ReadableStream<Uint8Array>({
        async start(controller) {
          const alive = setInterval(() => controller.enqueue(write({ type: "alive" })), ALIVE_MS);
          try {
            const line = await carryOutChainedStep(doors, capability, asked, begun, leaving);
            if (!leaving.aborted) controller.enqueue(write(line));
            controller.close();
          } catch (error) {
            doors.telemetry.degraded("chained step", error);
            if (!hangUp.signal.aborted) controller.error(error);
          } finally {
            clearInterval(alive);
          }
        },
        cancel: () => hangUp.abort(),
      });
      return new Response(body, { headers });
    },
  },
});
