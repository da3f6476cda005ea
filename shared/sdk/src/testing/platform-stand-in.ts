/** The two gateways that a plugin may call, on a local port: a model that follows a script, and stores of files and tickets in memory. */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import { getRequestListener, type HttpBindings } from "@hono/node-server";
import { RESPONSE_ALREADY_SENT } from "@hono/node-server/utils/response";
import { type Context, Hono } from "hono";
import * as v from "valibot";
import { type ChainLine, ChainRequest, type ChainResult } from "../chaining.ts";
import type { Attachment, KnowledgeChunk } from "../envelopes.ts";
import { KnowledgeQuestion, NewKnowledge } from "../scoped-knowledge.ts";
import { eventsOf, MessagesRequest, type ModelAnswer, type ModelCall, messageOf, offlineAnswer, type ScriptedUsage } from "./model-script.ts";
import { type TicketAnswer, TicketStandIn } from "./ticket-stand-in.ts";

/** Who a capability token was made for. */
export interface Holder {
  tenantId: string;
  taskId: string;
  plugin: string;
  scopes: readonly string[];
  /** Plugins that the manifest names among its dependencies. */
  dependencies: readonly string[];
  /** What the organisation's documents hold for this run. */
  knowledge: readonly KnowledgeChunk[];
  isOver: boolean;
}

export interface RecordedCall {
  kind: "model" | "artifact" | "ticket" | "knowledge" | "chain";
  method: string;
  /** Decoded. */
  path: string;
  body: string;
  requestId: string | null;
  /** `null` when the token was none of ours. */
  holder: Holder | null;
  /** The task was already over when the call came. */
  isLate: boolean;
}

export interface RecordedModelCall extends RecordedCall {
  kind: "model";
  call: ModelCall;
  usage: ScriptedUsage | null;
  /** Resolves when the connection is closed, `true` if that was before the answer was complete. */
  closed: Promise<boolean>;
}

export interface StoredArtifact {
  name: string;
  mediaType: string;
  content: Uint8Array;
}

/** Plays the other plugins: what one answers, or how it fails. */
export type ChainScript = (call: {
  plugin: string;
  command: string;
  attachments: readonly Attachment[];
  tenantId: string;
  occurrence: number;
}) => ChainAnswer | Promise<ChainAnswer>;
/** A string is the result's text. */
export type ChainAnswer =
  | string
  | (Partial<Omit<ChainResult, "plugin" | "version">> & { result: string })
  | { failed: { code: string; message?: string; cause?: "caller" | "plugin" | "upstream" | "platform" } };

export interface AddedDocument {
  content: string;
  media_type: string;
  source_url: string | null;
}

type TicketCall = (holder: Holder, body: unknown, id: string) => TicketAnswer;
type Env = { Bindings: HttpBindings };

function isModelCall(call: RecordedCall): call is RecordedModelCall {
  return call.kind === "model";
}

export class PlatformStandIn {
  readonly calls: RecordedCall[] = [];
  readonly holders = new Map<string, Holder>();
  readonly tickets = new TicketStandIn();
  /** What went wrong in the script itself; the harness rethrows it where the test can see it. */
  scriptError: Error | null = null;
  url = "";
  readonly #answer: ((call: ModelCall) => ModelAnswer | Promise<ModelAnswer>) | null;
  readonly #chain: ChainScript | null;
  readonly #documents = new Map<string, AddedDocument[]>();
  readonly #files = new Map<string, Map<string, StoredArtifact>>();
  readonly #app = new Hono<Env>();
  readonly #server = createServer(getRequestListener(this.#app.fetch, { overrideGlobalObjects: false }));

  /** @param answer `null` plays a platform without a provider's key. @param chain `null`: the tenant is subscribed to no other plugin. */
  constructor(answer: ((call: ModelCall) => ModelAnswer | Promise<ModelAnswer>) | null, chain: ChainScript | null = null) {
    this.#answer = answer;
    this.#chain = chain;
    this.#app.post("/internal/chain/:plugin", (c) => this.#chained(c));
    this.#app.post("/internal/scoped/knowledge/search", (c) => this.#search(c));
    this.#app.post("/internal/scoped/knowledge", (c) => this.#add(c));
    this.#app.post("/internal/llm/v1/messages", (c) => this.#message(c));
    this.#app.put("/internal/scoped/artifacts/:name", (c) => this.#put(c));
    this.#app.get("/internal/scoped/artifacts/:name", (c) => this.#get(c));
    const { tickets } = this;
    const door = (method: string, path: string, scope: string, call: TicketCall) => this.#app.on(method, `/internal/scoped/${path}`, (c) => this.#ticket(c, scope, call));
    door("POST", "tickets", "tickets:write", ({ tenantId, taskId, plugin }, body) => tickets.create(tenantId, taskId, plugin, body));
    door("GET", "tickets", "tickets:read", ({ tenantId }, filter) => tickets.list(tenantId, filter));
    door("GET", "tickets/:id", "tickets:read", ({ tenantId }, _body, id) => tickets.get(tenantId, id));
    door("PATCH", "tickets/:id", "tickets:write", ({ tenantId, taskId }, body, id) => tickets.change(tenantId, taskId, id, body));
  }

  get modelCalls(): RecordedModelCall[] {
    return this.calls.filter(isModelCall);
  }

  /** Documents that plugins added for this tenant. */
  documentsOf(tenantId: string): readonly AddedDocument[] {
    return this.#documents.get(tenantId) ?? [];
  }

  artifactsOf(taskId: string): ReadonlyMap<string, StoredArtifact> {
    return this.#files.get(taskId) ?? new Map();
  }

  async listen(): Promise<void> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    const address = this.#server.address();
    if (typeof address === "object" && address) this.url = `http://127.0.0.1:${address.port}`;
  }

  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = once(this.#server, "close");
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  #record(c: Context<Env>, kind: RecordedCall["kind"], token: string | undefined, body: string): RecordedCall {
    const holder = this.holders.get(token ?? "") ?? null;
    const recorded = {
      kind,
      method: c.req.method,
      path: decodeURIComponent(c.req.path),
      body,
      requestId: c.req.header("aau-request-id") ?? null,
      holder,
      isLate: holder?.isOver ?? false,
    };
    this.calls.push(recorded);
    return recorded;
  }

  async #message(c: Context<Env>): Promise<Response> {
    const recorded = this.#record(c, "model", c.req.header("x-api-key") ?? bearer(c), await c.req.text());
    if (!recorded.holder) return providerError(c, 401, "authentication_error", "unknown token");
    const body = v.safeParse(MessagesRequest, JSON.parse(recorded.body));
    if (!body.success) return providerError(c, 400, "invalid_request_error", body.issues[0].message);
    const { outgoing } = c.env;
    const call: ModelCall = {
      node: decodeURIComponent(c.req.header("aau-node") ?? ""),
      occurrence: Number(c.req.header("aau-occurrence")),
      tenantId: recorded.holder.tenantId,
      model: body.output.model,
      stream: body.output.stream,
      body: body.output,
    };
    const closed = new Promise<boolean>((resolve) => outgoing.once("close", () => resolve(!outgoing.writableFinished)));
    const modelCall = Object.assign(recorded, { kind: "model" as const, call, usage: null as ScriptedUsage | null, closed });

    let answer: ModelAnswer;
    try {
      answer = this.#answer ? await this.#answer(call) : offlineAnswer(call.body);
    } catch (error) {
      this.scriptError ??= error instanceof Error ? error : new Error(String(error));
      return providerError(c, 400, "invalid_request_error", "the script has no answer");
    }
    if (typeof answer === "object" && "error" in answer) {
      const { status, type, message = type, errorCode } = answer.error;
      return providerError(c, status, type, message, errorCode);
    }
    if (typeof answer === "object" && "fault" in answer) return fault(outgoing, answer.fault, closed);
    const message = messageOf(answer, call.body);
    modelCall.usage = message.usage;
    if (!call.stream) return c.json(message);
    outgoing.writeHead(200, { "content-type": "text/event-stream" });
    for (const event of eventsOf(message)) outgoing.write(event);
    outgoing.end();
    return RESPONSE_ALREADY_SENT;
  }

  async #search(c: Context<Env>): Promise<Response> {
    const { holder, body } = this.#record(c, "knowledge", bearer(c), await c.req.text());
    if (!holder?.scopes.includes("knowledge:read")) return c.json(null, holder ? 403 : 401);
    const question = v.safeParse(KnowledgeQuestion, JSON.parse(body));
    return question.success ? c.json({ passages: holder.knowledge.slice(0, question.output.limit) }) : c.json(null, 422);
  }

  async #add(c: Context<Env>): Promise<Response> {
    const { holder, body } = this.#record(c, "knowledge", bearer(c), await c.req.text());
    if (!holder?.scopes.includes("knowledge:write")) return c.json(null, holder ? 403 : 401);
    const document = v.safeParse(NewKnowledge, JSON.parse(body));
    if (!document.success) return c.json(null, 422);
    const known = this.#documents.get(holder.tenantId) ?? [];
    if (!known.some(({ content }) => content === document.output.content)) this.#documents.set(holder.tenantId, [...known, document.output]);
    return c.json({ document_id: `doc_${createHash("sha256").update(document.output.content).digest("hex").slice(0, 26)}`, status: "queued" }, 202);
  }

  async #chained(c: Context<Env>): Promise<Response> {
    const { holder, body } = this.#record(c, "chain", bearer(c), await c.req.text());
    const plugin = c.req.param("plugin") ?? "";
    const refuse = (status: 401 | 403 | 422, code: string) => c.json({ error: { code, message: code, request_id: "req_test" } }, status);
    if (!holder) return refuse(401, "AUTH_INVALID");
    if (!holder.scopes.includes("plugin:chain") || !holder.dependencies.includes(plugin)) return refuse(403, "FORBIDDEN_SCOPE");
    const asked = v.safeParse(ChainRequest, JSON.parse(body));
    if (!asked.success) return refuse(422, "INVALID_INPUT");
    if (!this.#chain) return refuse(403, "PLUGIN_NOT_SUBSCRIBED");
    let answer: ChainAnswer;
    try {
      answer = await this.#chain({ plugin, tenantId: holder.tenantId, ...asked.output });
    } catch (error) {
      this.scriptError ??= error instanceof Error ? error : new Error(String(error));
      return refuse(422, "INVALID_INPUT");
    }
    const line: ChainLine =
      typeof answer === "object" && "failed" in answer
        ? { type: "failed", message: answer.failed.code, cause: "plugin", ...answer.failed }
        : { ...PLAYED, plugin, ...(typeof answer === "string" ? { result: answer } : answer) };
    return c.body(`${JSON.stringify({ type: "alive" })}\n${JSON.stringify(line)}\n`, 200, { "content-type": "application/x-ndjson" });
  }

  async #put(c: Context<Env>): Promise<Response> {
    const bytes = new Uint8Array(await c.req.arrayBuffer());
    const { holder } = this.#record(c, "artifact", bearer(c), Buffer.from(bytes).toString());
    if (!holder) return c.json({ error: { code: "AUTH_INVALID", message: "unknown token", request_id: "req_test" } }, 401);
    if (!holder.scopes.includes("store:write")) return c.json({ error: { code: "FORBIDDEN_SCOPE", message: "store:write is missing", request_id: "req_test" } }, 403);
    const name = c.req.param("name") ?? "";
    const files = this.#files.get(holder.taskId) ?? new Map<string, StoredArtifact>();
    this.#files.set(holder.taskId, files.set(name, { name, mediaType: c.req.header("content-type") ?? "application/octet-stream", content: bytes }));
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    return c.json({ artifact_id: `art_${sha256.slice(0, 26)}`, name, media_type: files.get(name)?.mediaType, size_bytes: bytes.byteLength, sha256 });
  }

  #get(c: Context<Env>): Response {
    const { holder } = this.#record(c, "artifact", bearer(c), "");
    if (!holder) return c.body(null, 401);
    if (!holder.scopes.includes("store:read")) return c.body(null, 403);
    const file = this.#files.get(holder.taskId)?.get(c.req.param("name") ?? "");
    return file ? c.body(Buffer.from(file.content), 200, { "content-type": file.mediaType }) : c.body(null, 404);
  }

  async #ticket(c: Context<Env>, scope: string, call: TicketCall): Promise<Response> {
    const text = c.req.query("filter") ?? (await c.req.text());
    const { holder } = this.#record(c, "ticket", bearer(c), text);
    if (!holder) return c.json(null, 401);
    if (!holder.scopes.includes(scope)) return c.json(null, 403);
    const { status, body } = call(holder, JSON.parse(text || "null"), c.req.param("id") ?? "");
    return c.json(body, status);
  }
}

const PLAYED = {
  type: "ended" as const,
  version: "1.0.0",
  status: "success" as const,
  data: null,
  artifacts: [],
  confidence: 0.9,
  next_steps: [],
  warnings: [],
  tokens_used: 0,
};

function bearer(c: Context): string | undefined {
  return c.req.header("authorization")?.replace(/^Bearer /, "");
}

function providerError(c: Context<Env>, status: number, type: string, message: string, errorCode?: string): Response {
  const body = JSON.stringify({ type: "error", error: { type, message, ...(errorCode && { details: { error_code: errorCode } }) } });
  c.env.outgoing.writeHead(status, { "content-type": "application/json" });
  c.env.outgoing.end(body);
  return RESPONSE_ALREADY_SENT;
}

async function fault(outgoing: HttpBindings["outgoing"] | ServerResponse, kind: "breaks_off" | "hangs", closed: Promise<boolean>): Promise<Response> {
  if (kind === "breaks_off") {
    outgoing.writeHead(200, { "content-type": "application/json" });
    outgoing.write('{"type":"mess');
    setImmediate(() => outgoing.destroy());
  }
  await closed;
  return RESPONSE_ALREADY_SENT;
}
