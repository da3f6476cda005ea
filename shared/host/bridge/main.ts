/** The bridge's process: starts it, answers probes and metrics, and drains on SIGTERM. */
import { Hono } from "hono";
import { openLog } from "../../telemetry/log.ts";
import { openMetrics } from "../../telemetry/metrics.ts";
import { readConfig } from "../config.ts";
import { installFailpoints } from "../install-failpoints.ts";
import { listen } from "../listen.ts";
import { endOnSignals, openSpans } from "../serve.ts";
import { startBridge } from "./bridge.ts";

FAILPOINT: installFailpoints(process.env.AAU_FP);
const config = readConfig(process.env);
const log = openLog({ service: "bridge", level: config.LOG_LEVEL });
const metrics = openMetrics();
metrics.collectProcess();
const spans = await openSpans(config, "bridge");
const bridge = await startBridge(config, log, metrics, spans);
let isDraining = false;
const app = new Hono();
app.get("/health/readiness", (c) => (isDraining ? c.json({ status: "draining" }, 503) : c.json({ status: "ready" })));
app.get("/health/liveness", (c) => c.json({ status: "alive" }));
app.get("/metrics", async (c) => c.text(await metrics.registry.metrics(), 200, { "content-type": metrics.registry.contentType }));
const listening = await listen(app.fetch, { port: config.PORT });
log("info", "bridge runs", { count: listening.port });
endOnSignals(async () => {
  isDraining = true;
  await bridge.stop();
  await listening.close(1_000);
  await spans?.close();
});
