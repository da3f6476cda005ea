/** Receivers of webhooks, each with a path and a way of its own on one server. What they hear is written down as they answer. */
import { appendFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Webhook } from "standardwebhooks";
import * as v from "valibot";
import { type Behaviour, others, WELL } from "../webhooks/behaviours.ts";
import { type EndpointRecord, type Heard, marksIn } from "./records-around.ts";

export interface Endpoint extends EndpointRecord {
  name: string;
  secret: string;
}

export interface Receivers {
  endpoints: readonly Endpoint[];
  /** Ways to be a burden, beside being well. */
  burdens: readonly Behaviour[];
  heard: readonly Heard[];
  /** Connections at an address to which only redirects lead. */
  canaryConnections(): number;
  /** The URL of an endpoint that is heard from now on. */
  add(endpoint: { id: string; tenantId: string; secret: string }, behaviour?: Behaviour): string;
  /** From now on nobody has to tell it. */
  remove(id: string): void;
  close(): Promise<void>;
}

const Body = v.object({ type: v.string(), data: v.object({ task_id: v.optional(v.string()), invoice_id: v.optional(v.string()) }) });

export async function startReceivers(file: string): Promise<Receivers> {
  const endpoints = new Map<string, Endpoint & { behaviour: Behaviour; requests: number }>();
  const heard: Heard[] = [];
  let canaryConnections = 0;
  const canary = createServer((_, response) => response.end()).on("connection", () => {
    canaryConnections += 1;
  });
  const server = createServer(async (request, response) => {
    const endpoint = endpoints.get(request.url?.slice(1) ?? "");
    const chunks: Buffer[] = [];
    response.on("error", () => {});
    request.socket.on("error", () => {});
    try {
      for await (const chunk of request) chunks.push(chunk);
    } catch {
      // Its sender died half-way.
      return;
    }
    if (!endpoint) return void response.writeHead(404).end();
    const text = Buffer.concat(chunks).toString("utf8");
    endpoint.requests += 1;
    endpoint.behaviour.answer?.(request, response, endpoint.requests);
    const body = v.safeParse(v.pipe(v.string(), v.parseJson(), Body), text);
    const line: Heard = {
      at: Date.now(),
      endpoint: endpoint.id,
      webhook_id: String(request.headers["webhook-id"]),
      timestamp: Number(request.headers["webhook-timestamp"]),
      is_valid: isSigned(endpoint.secret, text, request.headers),
      type: body.success ? body.output.type : "unreadable",
      subject: body.success ? (body.output.data.task_id ?? body.output.data.invoice_id ?? null) : null,
      marks: marksIn(text),
      is_accepted: endpoint.isHealthy && response.statusCode < 300,
    };
    heard.push(line);
    appendFileSync(file, `${JSON.stringify(line)}\n`);
  });
  for (const each of [server, canary]) await new Promise<void>((resolve) => each.listen(0, "127.0.0.1", resolve));
  const port = (server.address() as AddressInfo).port;
  return {
    get endpoints() {
      return [...endpoints.values()];
    },
    burdens: others((canary.address() as AddressInfo).port),
    heard,
    canaryConnections: () => canaryConnections,
    add({ id, tenantId, secret }, behaviour = WELL) {
      endpoints.set(id, { id, tenantId, secret, name: behaviour.name, isHealthy: behaviour.isHealthy, since: new Date(), behaviour, requests: 0 });
      return behaviour.elsewhere?.(port) ?? `http://127.0.0.1:${port}/${id}`;
    },
    remove: (id) => void endpoints.delete(id),
    async close() {
      for (const each of [server, canary]) {
        each.closeAllConnections();
        await new Promise((resolve) => each.close(resolve));
      }
    },
  };
}

function isSigned(secret: string, body: string, headers: Record<string, unknown>): boolean {
  try {
    new Webhook(secret).verify(body, headers as Record<string, string>);
    return true;
  } catch {
    return false;
  }
}
