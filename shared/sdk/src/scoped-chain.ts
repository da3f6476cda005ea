/** Has a part of the work done by another plugin, through the platform's chain-gateway. */
import { createHash } from "node:crypto";
import * as v from "valibot";
import { ChainLine, type ChainResult } from "./chaining.ts";
import type { NodeContext } from "./define-plugin.ts";
import { ChainFailed, GatewayError } from "./errors.ts";
import { quoteData } from "./quote-data.ts";
import { requireScope } from "./scoped-call.ts";

export interface ChainDoor {
  gatewayUrl: string;
  /** The `chain` capability token; null when the platform gave none. */
  token: string | null;
  scopes: readonly string[];
  taskId: string;
  signal: AbortSignal;
  trace: Readonly<Record<string, string>>;
  /** Gives 1, 2, 3 … for the same key within one execution. */
  countOccurrence(key: string): number;
  timeLeftMs(): number;
  onUsed(tokens: number): void;
}

const DOOR = "the chain-gateway";
const Refused = v.object({ error: v.object({ code: v.string(), message: v.string() }) });
/** What the caller of the whole task can do something about. */
const CALLERS = new Set(["PLUGIN_NOT_SUBSCRIBED", "CHAINING_NOT_INCLUDED", "QUOTA_EXCEEDED"]);

export function scopedChain(door: ChainDoor): NodeContext["chain"] {
  return async (plugin, { command, attachments = [] }) => {
    requireScope(door, "plugin:chain");
    const asked = JSON.stringify({ command, attachments });
    const occurrence = door.countOccurrence(`chain\n${plugin}\n${createHash("sha256").update(asked).digest("hex")}`);
    let response: Response;
    try {
      response = await fetch(`${door.gatewayUrl}/internal/chain/${encodeURIComponent(plugin)}`, {
        method: "POST",
        headers: { ...door.trace, authorization: `Bearer ${door.token}`, "content-type": "application/json" },
        body: JSON.stringify({ command, attachments, occurrence, time_left_ms: door.timeLeftMs() }),
        signal: door.signal,
      });
    } catch (cause) {
      door.signal.throwIfAborted();
      throw new GatewayError(`${DOOR} did not answer`, null, { cause });
    }
    if (response.status !== 200 || !response.body) throw await refusalOf(response);
    const ended = await lastLine(response.body, door.signal);
    door.onUsed(ended.tokens_used);
    return { ...ended, asData: () => quoteData(door.taskId, ended.result) };
  };
}

async function refusalOf(response: Response): Promise<Error> {
  const refused = v.safeParse(Refused, await response.json().catch(() => undefined));
  if (!refused.success || response.status >= 500) return new GatewayError(`${DOOR} answered with ${response.status}`, response.status);
  const { code, message } = refused.output.error;
  if (CALLERS.has(code)) return new ChainFailed(message, code, "caller");
  if (code === "CONFLICT") return new GatewayError(`${DOOR} answered: ${message}`, response.status);
  return new ChainFailed(message, code, "plugin");
}

async function lastLine(body: ReadableStream<Uint8Array>, signal: AbortSignal): Promise<ChainResult> {
  try {
    for await (const text of linesOf(body)) {
      const line = v.parse(ChainLine, JSON.parse(text));
      if (line.type === "failed") throw new ChainFailed(line.message, line.code, line.cause, line.retry_after_seconds ?? undefined);
      if (line.type === "ended") return line;
    }
  } catch (cause) {
    signal.throwIfAborted();
    if (cause instanceof ChainFailed) throw cause;
    throw new GatewayError(`${DOOR}'s answer broke off`, null, { cause });
  }
  throw new GatewayError(`${DOOR}'s answer broke off`, null);
}

/** Not `readline`: a stream that breaks off is an uncaught exception there, this ends with the loop that reads it. */
async function* linesOf(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  for await (const text of body.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    yield* lines;
  }
  if (rest) yield rest;
}
