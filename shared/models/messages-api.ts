/** The Messages API as the gateway reads and speaks it. What it does not need to know passes through untouched. */
import * as v from "valibot";

const Content = v.union([v.string(), v.array(v.unknown())], "must be text or a list of blocks");
const Request = v.looseObject({
  model: v.pipe(v.string(), v.minLength(1), v.maxLength(256)),
  max_tokens: v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(10_000_000)),
  messages: v.pipe(v.array(v.looseObject({ role: v.string(), content: Content })), v.minLength(1, "must not be empty")),
  system: v.optional(v.nullable(Content)),
  tools: v.optional(v.nullable(v.array(v.unknown()))),
  stream: v.optional(v.nullable(v.boolean())),
  speed: v.optional(v.nullable(v.string())),
  mcp_servers: v.optional(v.nullable(v.array(v.unknown()))),
  container: v.optional(v.unknown()),
});
type MessagesRequest = v.InferOutput<typeof Request>;

/** A request that the gateway does not pass on, in the words of the protocol. */
export class BadRequest extends Error {
  override readonly name = "BadRequest";
}

/** The text that is sent on: what was checked, and nothing that another parser may read in a different way. */
export function writeMessagesRequest(body: MessagesRequest): Buffer {
  try {
    return Buffer.from(JSON.stringify(body));
  } catch (error) {
    if (error instanceof RangeError) throw new BadRequest("The body is nested too deeply.");
    throw error;
  }
}

/** What the price of a request depends on besides its length. */
export interface RequestShape {
  images: number;
  hasPackedDocument: boolean;
  usesCache: boolean;
}

export interface ReadRequest {
  body: MessagesRequest;
  shape: RequestShape;
}

/** Throws BadRequest. */
export function readMessagesRequest(bytes: Uint8Array): ReadRequest {
  const json = parseJson(bytes);
  if (typeof json !== "object" || json === null || Array.isArray(json)) throw new BadRequest("The body must be a JSON object.");
  const parsed = v.safeParse(Request, json);
  if (!parsed.success) {
    const [issue] = parsed.issues;
    throw new BadRequest(`${v.getDotPath(issue)}: ${issue.received === "undefined" ? "is required" : issue.message.replace(/ but received .*$/s, "")}`);
  }
  const body = parsed.output;
  refuseWhatTheProviderWouldFetch(body);
  return { body, shape: shapeOf(body) };
}

/** Tools that run in the plugin, or that only search among the request's own tools. */
const LOCAL_TOOL = /^(?:custom$|bash_|text_editor_|computer_|memory_|tool_search_tool_)/;
const MaybeTyped = v.looseObject({ type: v.optional(v.nullable(v.string())) });

/**
 * A plugin may reach the hosts of its manifest and no others, and may not spend more than it is allowed. Both would be void if the
 * provider fetched addresses and ran tools for it: neither the hosts nor the tokens of that can be bounded beforehand.
 */
function refuseWhatTheProviderWouldFetch(body: MessagesRequest): void {
  if (body.mcp_servers?.length) throw new BadRequest("mcp_servers: not available here; a plugin calls servers itself, from the hosts of its manifest");
  if (body.container !== undefined && body.container !== null) throw new BadRequest("container: not available here");
  if (body.speed !== undefined && body.speed !== null && body.speed !== "standard") throw new BadRequest("speed: only standard is available here");
  for (const [index, tool] of (body.tools ?? []).entries()) {
    const { success, output } = v.safeParse(MaybeTyped, tool);
    if (success && output.type && !LOCAL_TOOL.test(output.type)) throw new BadRequest(`tools.${index}: tools that run at the provider are not available here`);
  }
  for (const block of blocksOf(body)) {
    const source = block.source?.type;
    if (source === "url" || source === "file" || block.type === "container_upload") throw new BadRequest("source: send the content itself (base64 or text), not its address");
  }
}

const Block = v.looseObject({
  type: v.optional(v.unknown()),
  content: v.optional(v.unknown()),
  cache_control: v.optional(v.unknown()),
  source: v.optional(v.looseObject({ type: v.optional(v.unknown()), media_type: v.optional(v.unknown()), content: v.optional(v.unknown()) })),
});
type Block = v.InferOutput<typeof Block>;

/** Every block of the prompt, also those inside tool results and documents. Deep nesting costs memory, never the stack. */
function* blocksOf(body: MessagesRequest): Generator<Block> {
  const lists: unknown[] = [body.system, ...body.messages.map((message) => message.content)];
  while (lists.length > 0) {
    const list = lists.pop();
    if (!Array.isArray(list)) continue;
    for (const item of list) {
      const block = v.safeParse(Block, item);
      if (!block.success) continue;
      yield block.output;
      lists.push(block.output.content, block.output.source?.content);
    }
  }
}

function shapeOf(body: MessagesRequest): RequestShape {
  const shape: RequestShape = { images: 0, hasPackedDocument: false, usesCache: hasCacheControl(body) || (body.tools ?? []).some(hasCacheControl) };
  for (const block of blocksOf(body)) {
    if (block.type === "image") shape.images++;
    else if (block.source?.type === "base64") shape.hasPackedDocument = true;
    if (hasCacheControl(block)) shape.usesCache = true;
  }
  return shape;
}

function hasCacheControl(value: unknown): boolean {
  return typeof value === "object" && value !== null && "cache_control" in value && value.cache_control !== null && value.cache_control !== undefined;
}

/** Undefined for text that is no JSON. */
export function parseJson(text: string | Uint8Array): unknown {
  try {
    return JSON.parse(typeof text === "string" ? text : Buffer.from(text.buffer, text.byteOffset, text.byteLength).toString("utf8"));
  } catch {
    return undefined;
  }
}

export interface MessagesError {
  status: number;
  type: string;
  message: string;
  /** One of the platform's codes, for those who know them: in a header, and in `error.details`. */
  code?: string;
  retryAfterSec?: number;
  requestId?: string;
}

function errorObject({ type, message, code, requestId }: MessagesError) {
  return {
    type: "error",
    error: { type, message, ...(code === undefined ? {} : { details: { error_code: code } }) },
    ...(requestId === undefined ? {} : { request_id: requestId }),
  };
}

export function errorResponse(error: MessagesError): Response {
  return new Response(JSON.stringify(errorObject(error)), {
    status: error.status,
    headers: {
      "content-type": "application/json",
      ...(error.requestId === undefined ? {} : { "request-id": error.requestId }),
      ...(error.code === undefined ? {} : { "aau-error-code": error.code }),
      ...(error.retryAfterSec === undefined ? {} : { "retry-after": String(error.retryAfterSec) }),
    },
  });
}

/** The last event of a stream that could not be brought to its end. */
export function errorEvent(error: MessagesError): string {
  return `event: error\ndata: ${JSON.stringify(errorObject(error))}\n\n`;
}

const BY_STATUS: Record<number, string> = {
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  405: "not_found_error",
  413: "request_too_large",
  429: "rate_limit_error",
  504: "timeout_error",
  529: "overloaded_error",
};

/** The protocol's name for a refusal with this status. */
export function errorTypeOf(status: number): string {
  return BY_STATUS[status] ?? (status >= 500 ? "api_error" : "invalid_request_error");
}
