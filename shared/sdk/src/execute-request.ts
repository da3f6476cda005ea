/** Reads `POST /execute`: the headers that the platform sends, and a body that is bounded before it is parsed. */
import type { IncomingHttpHeaders } from "node:http";
import * as v from "valibot";
import { ENVELOPE_VERSIONS, inputTo1, majorOf } from "./envelope-versions.ts";
import { InputEnvelope } from "./envelopes.ts";
import { InputEnvelope2 } from "./envelopes-2.ts";

export const MAX_BODY_BYTES = 12 * 1024 * 1024;

const Token = v.pipe(v.string(), v.regex(/^[\x21-\x7e]{1,8192}$/, "must be a capability token"));
/** Milliseconds from now: this process's clock need not agree with the platform's. */
const Span = v.optional(v.pipe(v.string(), v.regex(/^\d{1,10}$/, "must be milliseconds"), v.transform(Number)));
const Headers = v.object({
  "aau-llm-token": Token,
  "aau-scoped-token": Token,
  "aau-models": v.optional(v.picklist(["live", "offline"]), "live"),
  "aau-time-left-ms": Span,
  /** After this the plugin stops at the next node's boundary: the platform's own process, or the request, cannot last for longer. */
  "aau-stop-in-ms": Span,
  traceparent: v.optional(v.fallback(v.optional(v.pipe(v.string(), v.regex(/^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/))), undefined)),
});
export type ExecuteHeaders = v.InferOutput<typeof Headers>;

export type Refusal = { status: 413 | 422; code: "PAYLOAD_TOO_LARGE" | "INVALID_INPUT"; message: string };
export type Read<T> = { ok: true; value: T } | ({ ok: false } & Refusal);

const invalid = (message: string): { ok: false } & Refusal => ({ ok: false, status: 422, code: "INVALID_INPUT", message });
const tooLarge: { ok: false } & Refusal = { ok: false, status: 413, code: "PAYLOAD_TOO_LARGE", message: `The body is larger than ${MAX_BODY_BYTES} bytes.` };

/** Names the field, never what stands in it. */
function describe(issue: v.BaseIssue<unknown>): string {
  return `${v.getDotPath(issue) ?? "body"}: expected ${issue.expected ?? issue.type}`;
}

export function readHeaders(incoming: IncomingHttpHeaders): Read<ExecuteHeaders> {
  const headers = v.safeParse(Headers, incoming);
  return headers.success ? { ok: true, value: headers.output } : invalid(describe(headers.issues[0]));
}

async function readBounded(body: AsyncIterable<Uint8Array>): Promise<Buffer | null> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.byteLength;
    if (size > MAX_BODY_BYTES) return null;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, size);
}

/** The input in the one form that the SDK works with, and the version that the answer is to have. */
export interface ReadEnvelope {
  input: InputEnvelope;
  major: "1" | "2";
}

const AnyEnvelope = v.looseObject({ envelope_version: v.string() });

/** @param incoming The request's bytes; a body that breaks off rejects, and there is nobody left to answer. */
export async function readInput(incoming: AsyncIterable<Uint8Array>, contentLength: string | undefined): Promise<Read<ReadEnvelope>> {
  if (Number(contentLength ?? 0) > MAX_BODY_BYTES) return tooLarge;
  const bytes = await readBounded(incoming);
  if (!bytes) return tooLarge;
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    return invalid("The body is not JSON in UTF-8.");
  }
  const envelope = v.safeParse(AnyEnvelope, json);
  if (!envelope.success) return invalid(describe(envelope.issues[0]));
  // Whatever the manifest names: a platform and a plugin of different age must understand each other while either is rolled out.
  switch (majorOf(envelope.output.envelope_version)) {
    case "1": {
      const input = v.safeParse(InputEnvelope, json);
      return input.success ? { ok: true, value: { input: input.output, major: "1" } } : invalid(describe(input.issues[0]));
    }
    case "2": {
      const input = v.safeParse(InputEnvelope2, json);
      return input.success ? { ok: true, value: { input: inputTo1(input.output), major: "2" } } : invalid(describe(input.issues[0]));
    }
    default:
      return invalid(`envelope_version: this plugin speaks ${ENVELOPE_VERSIONS.join(" and ")}`);
  }
}
