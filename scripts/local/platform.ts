/** Every function in one process: what `npm run up` and the compose file start. Knative starts each from its own bundle instead. */
import { readConfig } from "../../shared/host/config.ts";
import type { AnyFunction } from "../../shared/host/declare.ts";
import { endOnSignals } from "../../shared/host/serve.ts";
import { loadFunctions } from "../functions.ts";
import { startInProcess } from "./in-process.ts";
import { startScheduler } from "./scheduler.ts";

const config = readConfig(process.env);
const loaded = await loadFunctions({ kinds: ["http", "event", "cron", "gateway"] });
const functions = loaded.map((f) => f.fn).filter((fn): fn is AnyFunction => fn.kind !== "plugin");
const platform = await startInProcess({
  functions,
  config,
  publicPort: config.PORT,
  internalPort: Number(process.env.INTERNAL_PORT ?? 0),
  host: process.env.LISTEN_HOST ?? "127.0.0.1",
});
platform.runtime.metrics.collectProcess();
const scheduler = startScheduler(functions, (name) => `${platform.internalUrl}/functions/${name}`);
endOnSignals(async () => {
  scheduler.stop();
  await platform.stop();
});
