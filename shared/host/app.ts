/** The Hono app of a process: the routes of its functions, its probes and its metrics. */
import { Hono } from "hono";
import { Refusal } from "../errors.ts";
import { cronHandler } from "./cron-function.ts";
import type { AnyFunction, Route } from "./declare.ts";
import { eventHandler } from "./event-function.ts";
import { gatewayHandler } from "./gateway-function.ts";
import { httpHandler, replyToError, requestInfo, toResponse } from "./http-function.ts";
import type { Runtime } from "./runtime.ts";

/** `{name}` of a declaration as Hono writes it. */
export function honoPath(route: Route): { method: string; path: string } {
  const [method = "", path = ""] = route.split(" ");
  return { method, path: path.replace(/\{(\w+)\}/g, ":$1") };
}

/** Where event and cron functions listen: at `/` on their own, under their name when several share a process. */
export function eventPath(fn: AnyFunction, isAlone: boolean): string {
  return isAlone ? "/" : `/functions/${fn.name}`;
}

/** Hono takes the first route that matches: fixed paths come before those with a parameter, and the catch-all last. */
function breadth(fn: AnyFunction): number {
  if (fn.kind !== "http") return 0;
  return fn.route.endsWith("/*") ? 2 : Number(fn.route.includes("{"));
}

/** In the order in which routes are to be tried. */
export const narrowFirst = (a: AnyFunction, b: AnyFunction): number => breadth(a) - breadth(b);

/** Adds the functions' routes to an app. */
export function mountFunctions(app: Hono, functions: readonly AnyFunction[], runtime: Runtime): void {
  for (const fn of [...functions].sort(narrowFirst)) {
    if (fn.kind === "http") {
      const { method, path } = honoPath(fn.route);
      const handle = httpHandler(fn, runtime);
      app.on(method, path, (c) => handle(c.req.raw, c.req.param()));
      // The catch-all declares GET, and answers every method.
      if (path === "/*") app.all(path, (c) => handle(c.req.raw, c.req.param()));
    } else if (fn.kind === "gateway") {
      for (const route of Object.keys(fn.routes) as Route[]) {
        const { method, path } = honoPath(route);
        const handle = gatewayHandler(fn, route, runtime);
        app.on(method, path, (c) => handle(c.req.raw, c.req.param()));
      }
    } else {
      const handle = fn.kind === "event" ? eventHandler(fn, runtime) : cronHandler(fn, runtime);
      app.post(eventPath(fn, functions.length === 1), (c) => handle(c.req.raw));
    }
  }
}

/** Probes and metrics, on the same port as Knative wants it. Readiness is cheap: it says whether this process takes requests. */
export function mountHealth(app: Hono, runtime: Runtime): void {
  app.get("/health/readiness", (c) => (runtime.draining.aborted ? c.json({ status: "draining" }, 503) : c.json({ status: "ready" })));
  app.get("/health/liveness", (c) => c.json({ status: "alive" }));
  app.get("/metrics", async (c) => c.text(await runtime.metrics.registry.metrics(), 200, { "content-type": runtime.metrics.registry.contentType }));
}

/** An app for these functions; what matches none of their routes gets our error format. */
export function functionApp(functions: readonly AnyFunction[], runtime: Runtime): Hono {
  const app = new Hono({ strict: true });
  mountHealth(app, runtime);
  mountFunctions(app, functions, runtime);
  app.notFound((c) => {
    const info = requestInfo(c.req.raw, runtime);
    return toResponse(replyToError(new Refusal("NOT_FOUND"), info.requestId, runtime, {}), info.requestId, runtime);
  });
  app.onError((error, c) => {
    const info = requestInfo(c.req.raw, runtime);
    return toResponse(replyToError(error, info.requestId, runtime, {}), info.requestId, runtime);
  });
  return app;
}
