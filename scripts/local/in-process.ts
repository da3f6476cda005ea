/**
 * Many functions in one process: the local platform's default, and the tests'. Two listeners, as in the cluster: the public one
 * knows only what the Gateway would route; events, schedules, plugin doors and the registry answer on the internal one.
 */
import { Hono } from "hono";
import { eventPath, mountFunctions, mountHealth } from "../../shared/host/app.ts";
import type { Config } from "../../shared/host/config.ts";
import type { AnyFunction } from "../../shared/host/declare.ts";
import { type Listening, listen } from "../../shared/host/listen.ts";
import { isPublic } from "../../shared/host/needs.ts";
import { ALL_OPENERS } from "../../shared/host/resources/all.ts";
import type { Openers } from "../../shared/host/resources.ts";
import type { Runtime } from "../../shared/host/runtime.ts";
import { openRuntime } from "../../shared/host/serve.ts";
import type { LogOptions } from "../../shared/telemetry/log.ts";
import { stripForeignHeaders } from "./public-gateway.ts";

export interface InProcessPlatform {
  publicUrl: string;
  internalUrl: string;
  runtime: Runtime;
  /** `name=url` pairs for FUNCTION_URLS. */
  functionUrls: string;
  stop(): Promise<void>;
}

export interface InProcessOptions {
  functions: readonly AnyFunction[];
  config: Config;
  publicPort?: number;
  internalPort?: number;
  /** Loopback unless said. */
  host?: string;
  openers?: Partial<Openers>;
  /** Standard output unless said. */
  logTo?: LogOptions["destination"];
}

export async function startInProcess({
  functions,
  config,
  publicPort = 0,
  internalPort = 0,
  host = "127.0.0.1",
  openers = ALL_OPENERS,
  logTo,
}: InProcessOptions): Promise<InProcessPlatform> {
  const { runtime, stop } = await openRuntime(functions, openers, config, "platform", logTo);
  const outside = functions.filter(isPublic);
  const inside = functions.filter((fn) => !isPublic(fn));
  const publicApp = new Hono();
  mountFunctions(publicApp, outside, runtime);
  const internalApp = new Hono();
  mountHealth(internalApp, runtime);
  mountFunctions(internalApp, inside, runtime);

  const listening: Listening[] = [];
  try {
    listening.push(await listen((request) => publicApp.fetch(stripForeignHeaders(request)), { port: publicPort, host }));
    listening.push(await listen(internalApp.fetch, { port: internalPort, host }));
  } catch (error) {
    await stop(listening);
    throw error;
  }
  const [open, closed] = listening.map((l) => `http://127.0.0.1:${l.port}`);
  return {
    publicUrl: open ?? "",
    internalUrl: closed ?? "",
    runtime,
    functionUrls: inside.map((fn) => `${fn.name}=${closed}${fn.kind === "event" || fn.kind === "cron" ? eventPath(fn, false) : ""}`).join(","),
    stop: () => stop(listening),
  };
}
