/** Gives a plugin its HTTP service, as Knative runs it. The only module of the SDK that reads the environment and listens. */
import { randomUUID } from "node:crypto";
import { setMaxListeners } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { setTimeout as wait } from "node:timers/promises";
import { getRequestListener } from "@hono/node-server";
import { type Context, Hono } from "hono";
import type { Plugin } from "./define-plugin.ts";
import { outputTo2 } from "./envelope-versions.ts";
import type { ExecutionEvent, InputEnvelope, OutputEnvelope } from "./envelopes.ts";
import { Stopped } from "./errors.ts";
import { type Ending, execute } from "./execute.ts";
import { type ExecuteHeaders, type ReadEnvelope, readHeaders, readInput } from "./execute-request.ts";
import { errorType } from "./failure.ts";
import { type GuardedFetch, guardedFetch } from "./guarded-fetch.ts";
import { askHealth } from "./health.ts";
import { framesOf, type Log, logToStdout } from "./log.ts";
import { timeLimit } from "./time-limit.ts";

export interface ServeOptions {
  /** Default `PORT`, else 8080; 0 takes a free one. */
  port?: number;
  /** Default all interfaces. */
  hostname?: string;
  /** Base URL of the llm-gateway; default `LLM_GATEWAY_URL`. */
  llmGatewayUrl?: string;
  /** Base URL of the scope-gateway; default `SCOPE_GATEWAY_URL`. */
  scopeGatewayUrl?: string;
  /** Base URL of the chain-gateway; default `CHAIN_GATEWAY_URL`, and without it that of the scope-gateway. */
  chainGatewayUrl?: string;
  /** Lets `ctx.fetch` call any address, plain http too; default `AAU_ALLOW_PRIVATE_EGRESS`. */
  allowPrivateEgress?: boolean;
  /** Drain and exit on SIGTERM and SIGINT; default true. */
  signals?: boolean;
  /** Default JSON lines on stdout. */
  log?: Log;
  /** Told of every execution's end with what was thrown, inside this process; for tests. */
  onEnd?(ending: Ending, input: InputEnvelope): void;
}

export interface PluginServer {
  readonly port: number;
  readonly url: string;
  /** Refuses new executions, waits for those that run to stop at their next node (at most the plugin's time-out, then they are cut off), and closes. */
  close(): Promise<void>;
}

const ALIVE_MS = 5000;
/** For executions that were told to stop to send their last line, and then for connections that never sent a request. */
const STOP_GRACE_MS = 2000;
const UNUSED_CONNECTION_MS = 100;
const MAX_TIMER_MS = 2_147_483_647;

/** RELIABILITY 2.2. Idle connections outlive those of any proxy before us, so that it never writes into a closing one. */
const CONNECTION_LIMITS = { keepAliveTimeout: 65_000, headersTimeout: 10_000, requestTimeout: 30_000 };

function baseUrl(name: string, given: string | undefined): string {
  const text = given ?? process.env[name] ?? "";
  if (!URL.canParse(text)) throw new Error(`${name} must be the gateway's base URL`);
  return text.replace(/\/+$/, "");
}

function portFrom(given: number | undefined): number {
  const port = given ?? Number(process.env.PORT ?? 8080);
  if (!Number.isInteger(port) || port < 0 || port > 65535) throw new Error("PORT must be a number from 0 to 65535");
  return port;
}

function requestIdOf(given: string | string[] | undefined): string {
  return typeof given === "string" && /^[\w-]{1,128}$/.test(given) ? given : `req_${randomUUID()}`;
}

const refusal = (code: string, message: string, request_id: string) => ({ error: { code, message, request_id } });

function refuse(incoming: IncomingMessage, outgoing: ServerResponse, status: number, code: string, message: string, headers: Record<string, string> = {}): void {
  outgoing.writeHead(status, { "content-type": "application/json", ...headers });
  outgoing.end(JSON.stringify(refusal(code, message, requestIdOf(incoming.headers["aau-request-id"]))));
}

/** Everything about one running service; `serve` below gives it a socket. */
class PluginService {
  readonly #app = new Hono();
  /** All paths but the one that every task takes. */
  readonly #others = getRequestListener(this.#app.fetch, { overrideGlobalObjects: false });
  readonly #plugin: Plugin;
  readonly #log: Log;
  readonly #fetch: GuardedFetch;
  readonly #gateways: { llmGatewayUrl: string; scopeGatewayUrl: string; chainGatewayUrl: string };
  readonly #onEnd: ServeOptions["onEnd"];
  readonly #running = new Map<AbortController, Promise<void>>();
  readonly #totals: Record<OutputEnvelope["status"], number> = { success: 0, partial: 0, failed: 0 };
  readonly #leaving = new AbortController();
  #isDraining = false;

  constructor(plugin: Plugin, options: ServeOptions) {
    this.#plugin = plugin;
    this.#log = options.log ?? logToStdout(plugin.name);
    this.#onEnd = options.onEnd;
    setMaxListeners(0, this.#leaving.signal);
    const scopeGatewayUrl = baseUrl("SCOPE_GATEWAY_URL", options.scopeGatewayUrl);
    this.#fetch = guardedFetch({ allowPrivate: options.allowPrivateEgress ?? process.env.AAU_ALLOW_PRIVATE_EGRESS === "true" });
    this.#gateways = {
      llmGatewayUrl: baseUrl("LLM_GATEWAY_URL", options.llmGatewayUrl),
      scopeGatewayUrl,
      chainGatewayUrl: baseUrl("CHAIN_GATEWAY_URL", options.chainGatewayUrl ?? process.env.CHAIN_GATEWAY_URL ?? scopeGatewayUrl),
    };
    this.#app.get("/manifest", (c) => c.json(plugin.manifest));
    this.#app.get("/health/liveness", (c) => c.text("ok"));
    this.#app.get("/health/readiness", (c) => (this.#isDraining ? c.text("draining", 503) : c.text("ok")));
    // 200 in any case: the answer is the report, and readiness is asked elsewhere.
    this.#app.get("/health", async (c) => c.json(await askHealth(plugin)));
    this.#app.get("/metrics", (c) => c.text(this.#metrics(), 200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" }));
    const refuse = (c: Context, status: 404 | 500, code: string, message: string) => c.json(refusal(code, message, requestIdOf(c.req.header("aau-request-id"))), status);
    this.#app.notFound((c) => refuse(c, 404, "NOT_FOUND", "There is nothing at this path."));
    this.#app.onError((error, c) => {
      this.#logTrouble(error);
      return refuse(c, 500, "INTERNAL", "The plugin's server failed.");
    });
  }

  /** What the server is given; never rejects. */
  readonly answer = (incoming: IncomingMessage, outgoing: ServerResponse): void => {
    if (incoming.method !== "POST" || !/^\/execute(?:\?|$)/.test(incoming.url ?? "")) {
      this.#others(incoming, outgoing);
      return;
    }
    this.#answerExecute(incoming, outgoing).catch((error: unknown) => {
      this.#logTrouble(error);
      if (outgoing.headersSent) outgoing.destroy();
      else refuse(incoming, outgoing, 500, "INTERNAL", "The plugin's server failed.");
    });
  };

  #logTrouble(error: unknown): void {
    this.#log({ level: "error", message: "Request failed", error_type: errorType(error), frames: framesOf(error) });
  }

  #metrics(): string {
    const label = `plugin="${this.#plugin.name}"`;
    const totals = Object.entries(this.#totals).map(([status, count]) => `aau_plugin_executions_total{${label},status="${status}"} ${count}`);
    return [
      "# TYPE aau_plugin_executions_in_flight gauge",
      `aau_plugin_executions_in_flight{${label}} ${this.#running.size}`,
      "# TYPE aau_plugin_executions_total counter",
      ...totals,
      "",
    ].join("\n");
  }

  /** Without a framework: the platform sends every step of every task here. */
  async #answerExecute(incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
    const headers = readHeaders(incoming.headers);
    if (!headers.ok) return refuse(incoming, outgoing, headers.status, headers.code, headers.message);
    const input = await readInput(incoming, incoming.headers["content-length"]);
    // What is left of a refused body would be read as the next request.
    if (!input.ok) return refuse(incoming, outgoing, input.status, input.code, input.message, input.status === 413 ? { connection: "close" } : {});

    // Asked after the body has come in, for the drain may have begun meanwhile.
    if (this.#isDraining) {
      return refuse(incoming, outgoing, 503, "PLUGIN_UNAVAILABLE", "The plugin's process is being stopped.", { "retry-after": "1", connection: "close" });
    }

    const stop = new AbortController();
    const onClose = () => {
      if (!outgoing.writableFinished) stop.abort(new Stopped("gone", "the platform hung up"));
    };
    outgoing.once("close", onClose);
    const run = this.#run(outgoing, input.value, headers.value, requestIdOf(incoming.headers["aau-request-id"]), stop.signal).finally(() => this.#running.delete(stop));
    this.#running.set(stop, run);
    await run;
  }

  /** Writes to the socket itself: the events of one turn of the event loop leave together, at its end, and the last one ends the answer. */
  async #run(outgoing: ServerResponse, { input, major }: ReadEnvelope, headers: ExecuteHeaders, requestId: string, signal: AbortSignal): Promise<void> {
    const line = (event: ExecutionEvent) => `${JSON.stringify(event)}\n`;
    let isHeld = false;
    const holdForThisTurn = () => {
      if (isHeld) return;
      isHeld = true;
      outgoing.cork();
      setImmediate(() => {
        isHeld = false;
        if (!outgoing.writableEnded) outgoing.uncork();
      });
    };
    holdForThisTurn();
    outgoing.writeHead(200, { "content-type": "application/x-ndjson", "cache-control": "no-store", "aau-request-id": requestId });
    const alive = setInterval(() => outgoing.write(line({ type: "alive" })), ALIVE_MS);
    const startedAt = performance.now();
    const about = { task_id: input.task_id, tenant_id: input.context.tenant_id, request_id: requestId };
    try {
      const ending = await execute(
        this.#plugin,
        input,
        {
          ...this.#gateways,
          fetch: this.#fetch,
          llmToken: headers["aau-llm-token"],
          scopedToken: headers["aau-scoped-token"],
          chainToken: headers["aau-chain-token"] ?? null,
          hasModel: headers["aau-models"] === "live",
          timeLeftMs: headers["aau-time-left-ms"] ?? null,
          signal,
          leaving: this.#leavingIn(headers["aau-stop-in-ms"]),
          trace: { "aau-request-id": requestId, ...(headers.traceparent && { traceparent: headers.traceparent }) },
          onNodeEnd: (node, duration_ms, outcome) => this.#log({ level: "info", message: `Node ${outcome}`, ...about, node, duration_ms }),
        },
        (event) => {
          holdForThisTurn();
          outgoing.write(line(event));
        },
      );
      const { envelope, thrown, isHandedBack } = ending;
      if (!isHandedBack) this.#totals[envelope.status] += 1;
      this.#onEnd?.(ending, input);
      const sent = new Promise<void>((resolve) => (outgoing.closed ? resolve() : outgoing.once("close", resolve)));
      outgoing.end(isHandedBack ? line({ type: "stopped" }) : `${JSON.stringify({ type: "output", envelope: major === "2" ? outputTo2(envelope) : envelope })}\n`);
      this.#log({
        level: envelope.error_cause === "plugin" ? "error" : "info",
        message: isHandedBack ? "Execution handed back" : "Execution finished",
        ...about,
        duration_ms: Math.round(performance.now() - startedAt),
        tokens_used: envelope.execution_meta.tokens_used,
        status: envelope.status,
        ...(envelope.status === "failed" && {
          error_code: envelope.error_code,
          error_cause: envelope.error_cause,
          error_type: errorType(thrown),
          frames: framesOf(thrown),
        }),
      });
      // Until its last byte has left, the execution counts as running, so a shutdown waits for it.
      await sent;
    } finally {
      clearInterval(alive);
    }
  }

  /** What tells an execution to stop at its next node: the drain, or the time that the platform has named. */
  #leavingIn(leftMs: number | undefined): AbortSignal {
    if (leftMs === undefined) return this.#leaving.signal;
    return leftMs <= 0 ? AbortSignal.abort() : AbortSignal.any([this.#leaving.signal, timeLimit(Math.min(leftMs, MAX_TIMER_MS))]);
  }

  /** What runs stops at its next node. What has not after the plugin's time-out is cut off, and has a little longer for its last line. */
  async drain(): Promise<void> {
    this.#isDraining = true;
    this.#leaving.abort();
    const grace = new AbortController();
    const settled = Promise.allSettled(this.#running.values());
    const stopped = wait(this.#plugin.manifest.timeout_seconds * 1000, undefined, { signal: grace.signal }).then(() => {
      for (const controller of this.#running.keys()) controller.abort(new Stopped("shutdown", "the process is being stopped"));
      return wait(STOP_GRACE_MS, undefined, { signal: grace.signal });
    });
    await Promise.race([settled, stopped]);
    stopped.catch(() => undefined);
    grace.abort();
  }
}

/**
 * Serves a plugin: `POST /execute`, `GET /manifest`, `/health`, `/health/readiness`, `/health/liveness`, `/metrics`.
 *
 * @returns once it listens.
 * @throws Error that names the setting which is missing.
 */
export async function serve(plugin: Plugin, options: ServeOptions = {}): Promise<PluginServer> {
  const service = new PluginService(plugin, options);
  const server = createServer(CONNECTION_LIMITS, service.answer);
  server.maxHeadersCount = 100;
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(portFrom(options.port), options.hostname, () => {
      server.off("error", reject);
      resolve();
    });
  });
  const address = server.address();
  const port = typeof address === "object" && address ? address.port : 0;

  let closing: Promise<void> | undefined;
  const close = () => {
    closing ??= service.drain().then(
      () =>
        new Promise<void>((resolve) => {
          server.close(() => resolve());
          server.closeIdleConnections();
          setTimeout(() => server.closeAllConnections(), UNUSED_CONNECTION_MS);
        }),
    );
    return closing;
  };
  if (options.signals ?? true) {
    for (const name of ["SIGTERM", "SIGINT"] as const) process.once(name, () => void close().then(() => process.exit(0)));
  }
  return { port, url: `http://127.0.0.1:${port}`, close };
}
