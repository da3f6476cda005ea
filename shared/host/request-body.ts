/** Reads a request's body with every limit applied before the bytes are believed. */
import * as v from "valibot";
import { Refusal } from "../errors.ts";

const MAX_DEPTH = 64;
const FORBIDDEN_KEYS = new Set(["__proto__", "constructor", "prototype"]);
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** The whole body; refuses what is larger, also when the length was not announced. */
export async function readBytes(request: Request, maxBytes: number): Promise<Uint8Array> {
  const announced = request.headers.get("content-length");
  if (announced !== null) {
    if (Number(announced) > maxBytes) throw tooLarge(maxBytes);
    return new Uint8Array(await request.arrayBuffer());
  }
  if (!request.body) return new Uint8Array();
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of request.body) {
    size += chunk.byteLength;
    if (size > maxBytes) throw tooLarge(maxBytes);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function tooLarge(maxBytes: number): Refusal {
  return new Refusal("PAYLOAD_TOO_LARGE", { message: `The body is larger than ${maxBytes} bytes.`, headers: { connection: "close" } });
}

/** Refuses bodies that are not plain JSON text by their headers. */
export function checkContentType(headers: Headers): void {
  const encoding = headers.get("content-encoding");
  if (encoding !== null && encoding !== "identity") throw new Refusal("UNSUPPORTED_MEDIA_TYPE", { message: "Send the body uncompressed." });
  const type = headers.get("content-type")?.toLowerCase();
  const [essence, ...parameters] = (type ?? "").split(";").map((part) => part.trim());
  if (essence !== "application/json") throw new Refusal("UNSUPPORTED_MEDIA_TYPE", { message: "Send the body as application/json." });
  if (parameters.some((p) => p.startsWith("charset=") && !/^charset="?utf-8"?$/.test(p))) throw new Refusal("UNSUPPORTED_MEDIA_TYPE", { message: "Send the body as UTF-8." });
}

/** JSON as untrusted data. Values that PostgreSQL cannot store, or that poison objects, are refused here for every function. */
export function parseJson(bytes: Uint8Array): unknown {
  let text: string;
  try {
    text = decoder.decode(bytes);
  } catch {
    throw new Refusal("INVALID_INPUT", { message: "The body is not valid UTF-8." });
  }
  if (text.startsWith("\ufeff")) throw new Refusal("INVALID_INPUT", { message: "The body begins with a byte order mark; send plain UTF-8." });
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Refusal("INVALID_INPUT", { message: text.trim() === "" ? "The body is empty; send a JSON object." : "The body is not valid JSON." });
  }
  checkValue(value);
  return value;
}

/** For doors that read their bodies themselves; the refusal names the field that is wrong. */
export function readAs<Schema extends v.GenericSchema>(schema: Schema, value: unknown): v.InferOutput<Schema> {
  const parsed = v.safeParse(schema, value);
  if (parsed.success) return parsed.output;
  throw new Refusal("INVALID_INPUT", { message: `${v.getDotPath(parsed.issues[0]) ?? "body"}: ${parsed.issues[0].message}` });
}

export const readJson = <Schema extends v.GenericSchema>(schema: Schema, bytes: Uint8Array): v.InferOutput<Schema> => readAs(schema, parseJson(bytes));

function checkValue(root: unknown): void {
  const open: { value: unknown; depth: number }[] = [{ value: root, depth: 1 }];
  for (let next = open.pop(); next; next = open.pop()) {
    const { value, depth } = next;
    if (typeof value === "string") checkText(value);
    if (typeof value !== "object" || value === null) continue;
    if (depth > MAX_DEPTH) throw new Refusal("INVALID_INPUT", { message: `The body is nested more than ${MAX_DEPTH} levels deep.` });
    if (Array.isArray(value)) {
      for (const item of value) open.push({ value: item, depth: depth + 1 });
      continue;
    }
    for (const [key, member] of Object.entries(value)) {
      if (FORBIDDEN_KEYS.has(key)) throw new Refusal("INVALID_INPUT", { message: `The name ${key} is not allowed.` });
      checkText(key);
      open.push({ value: member, depth: depth + 1 });
    }
  }
}

function checkText(text: string): void {
  if (text.includes("\0")) throw new Refusal("INVALID_INPUT", { message: "Text must not contain NUL characters." });
  if (!text.isWellFormed()) throw new Refusal("INVALID_INPUT", { message: "Text must be well-formed Unicode; a surrogate stands alone." });
}
