/** The local stand-in for the public Gateway: which requests come in, and what is done to them before a function sees them. */
import { Hono } from "hono";
import { Agent, request as send } from "undici";
import { honoPath, narrowFirst } from "../../shared/host/app.ts";
import type { AnyFunction } from "../../shared/host/declare.ts";
import { type Listening, listen } from "../../shared/host/listen.ts";
import { isPublic } from "../../shared/host/needs.ts";

const FOREIGN = /^(x-forwarded-|x-real-ip$|forwarded$|ce-|knative-|k-|x-tenant-id$|x-user-id$|aau-)/;
const HOP_BY_HOP = new Set(["connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-authorization", "proxy-authenticate", "host", "expect"]);

/** The request without headers that only the platform may set: nobody outside speaks as the platform. */
export function stripForeignHeaders(request: Request): Request {
  for (const name of request.headers.keys()) {
    if (!FOREIGN.test(name)) continue;
    const headers = new Headers();
    for (const [key, value] of request.headers) if (!FOREIGN.test(key)) headers.append(key, value);
    // Part by part: the server's request is not an instance of the global class, which would take it for an address.
    const { method, body, signal } = request;
    // The class refuses to be made with TRACE, which has to be refused as any other method is.
    if (method === "TRACE") return Object.defineProperty(new Request(request.url, { headers, signal }), "method", { value: method });
    return new Request(request.url, { method, headers, signal, ...(body ? { body, duplex: "half" } : {}) });
  }
  return request;
}

/** Forwards each public route to the function's own process, as the HTTPRoutes do. */
export async function startProxyGateway(functions: readonly AnyFunction[], urlOf: (name: string) => string, port: number): Promise<Listening> {
  const agent = new Agent({ headersTimeout: 620_000, bodyTimeout: 620_000 });
  const app = new Hono();
  const outside = functions.filter(isPublic).sort(narrowFirst);
  for (const fn of outside) {
    if (fn.kind !== "http") continue;
    const { method, path } = honoPath(fn.route);
    const forward = (request: Request) => proxy(agent, urlOf(fn.name), stripForeignHeaders(request));
    if (path === "/*") app.all(path, (c) => forward(c.req.raw));
    else app.on(method, path, (c) => forward(c.req.raw));
  }
  const listening = await listen(app.fetch, { port, host: "127.0.0.1" });
  return {
    port: listening.port,
    async close(graceMs) {
      await listening.close(graceMs);
      await agent.destroy();
    },
  };
}

async function proxy(agent: Agent, origin: string, request: Request): Promise<Response> {
  const { pathname, search } = new URL(request.url);
  const headers: Record<string, string> = {};
  for (const [name, value] of request.headers) if (!HOP_BY_HOP.has(name)) headers[name] = value;
  try {
    const answer = await send(`${origin}${pathname}${search}`, {
      method: request.method as "GET",
      headers,
      // Length is passed on as the caller gave it; a body without one is streamed.
      body: request.body ? Buffer.from(await request.arrayBuffer()) : undefined,
      dispatcher: agent,
      signal: request.signal,
    });
    const out = new Headers();
    for (const [name, value] of Object.entries(answer.headers)) if (!HOP_BY_HOP.has(name) && value !== undefined) for (const one of [value].flat()) out.append(name, one);
    const hasBody = answer.statusCode !== 204 && answer.statusCode !== 304;
    if (!hasBody) await answer.body.dump();
    return new Response(hasBody ? ReadableStream.from(answer.body) : null, { status: answer.statusCode, headers: out });
  } catch {
    return new Response("upstream connect error\n", { status: 503 });
  }
}
