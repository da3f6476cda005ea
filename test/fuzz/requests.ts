/**
 * Requests for every operation of the document: drawn from its schemas, and then damaged in none, one or several ways. All of it is one arbitrary, so
 * fast-check can shrink what breaks a rule. One file, since the parts of a request are drawn together.
 */
import fc from "fast-check";
import type { Operation, Parameter } from "../../shared/host/openapi.ts";
import { DOCUMENT } from "../batteries/declared.ts";
import { PROTOTYPE_NAMES, RAW_QUERIES, RAW_SEGMENTS } from "./bad-texts.ts";
import { damage, textDamage } from "./damage.ts";
import { type Planted, spoil } from "./planted.ts";
import { anyText, often, type Shape, valuesOf } from "./values.ts";

export interface FuzzRequest {
  /** `POST /v1/tasks`, as the document names it. */
  operation: string;
  method: string;
  /** Path and query as they are sent. */
  target: string;
  headers: readonly (readonly [string, string])[];
  body: Uint8Array | null;
  /** Method, path and host are this operation's, whatever else is wrong. */
  isAtHome: boolean;
}

export const OPERATIONS: readonly (readonly [string, Operation])[] = Object.entries(DOCUMENT.paths).flatMap(([path, calls]) =>
  Object.entries(calls).map(([method, operation]) => [`${method.toUpperCase()} ${path}`, operation] as const),
);

/** Bytes that may stand in a header at all: others are refused by the client that sends. */
const headerText = anyText.map((text) => text.replace(/[^\t\x20-\x7e\x80-\xff]/gu, "").slice(0, 3_000));
const HEADER_NAMES = [
  "accept",
  "accept-encoding",
  "ce-id",
  "ce-type",
  "content-encoding",
  "content-type",
  "cookie",
  "forwarded",
  "idempotency-key",
  "if-match",
  "if-none-match",
  "last-event-id",
  "origin",
  "prefer",
  "range",
  "traceparent",
  "tracestate",
  "x-forwarded-for",
  "x-forwarded-host",
  "x-http-method-override",
  "x-request-id",
  "x-tenant-id",
  "__proto__",
] as const;
const KNOWN_HEADERS: readonly (readonly [string, string])[] = [
  ["accept", "text/html"],
  ["host", "x/#@evil"],
  ["host", "example.com:99999"],
  ["host", ""],
  ["accept", "text/csv;q=0.9, */*;q=0"],
  ["content-type", "text/plain"],
  ["content-type", "application/json; charset=utf-16"],
  ["content-encoding", "gzip"],
  ["idempotency-key", "a-key-of-mine"],
  ["idempotency-key", "x".repeat(300)],
  ["if-match", '"1"'],
  ["if-match", "*"],
  ["last-event-id", "1"],
  ["last-event-id", "99999999999999999999"],
  ["last-event-id", "-1"],
  ["prefer", "wait=0"],
  ["prefer", "wait=-1, respond-async"],
  ["range", "bytes=0-"],
  ["traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
  ["traceparent", `00-${"0".repeat(32)}-${"0".repeat(16)}-01`],
  ["x-request-id", "my-own-request-id"],
];
const oddHeader: fc.Arbitrary<readonly [string, string]> = fc.oneof(
  often(4, fc.constantFrom(...KNOWN_HEADERS)),
  // A number of seconds that somebody would really wait is none of these.
  often(
    4,
    fc.tuple(
      fc.constantFrom(...HEADER_NAMES),
      headerText.filter((text) => !/wait/.test(text)),
    ),
  ),
  often(
    1,
    fc.tuple(
      fc.constantFrom("x-a", "cookie"),
      fc.integer({ min: 4_000, max: 20_000 }).map((length) => "x".repeat(length)),
    ),
  ),
);

const asQuery = (text: string): string =>
  Buffer.from(text)
    .toString("latin1")
    .replace(/[^\w.~-]/g, (byte) => `%${byte.charCodeAt(0).toString(16).padStart(2, "0")}`);
const bytesOf = (damaged: string | Uint8Array): Uint8Array => (typeof damaged === "string" ? Buffer.from(damaged) : damaged);
const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "QUERY"] as const;
/** One in so many requests has what is optional here. */
const rarely = <T>(arbitrary: fc.Arbitrary<T>, outOf: number): fc.Arbitrary<T | null> => fc.oneof(often(outOf - 1, fc.constant(null)), often(1, arbitrary));

/** Draws requests of all operations alike. */
export function requestsOf(world: Planted): fc.Arbitrary<FuzzRequest> {
  const { value, idOf, plugin } = valuesOf(world);

  const segment = (parameter: Parameter | undefined): fc.Arbitrary<{ text: string; isRaw: boolean }> => {
    const prefix = /^\^([a-z]+)_\[/.exec(parameter?.schema.pattern ?? "")?.[1];
    const good = prefix
      ? idOf(prefix)
      : parameter?.name === "name"
        ? fc.oneof(often(4, plugin), often(1, fc.constant("report.txt")))
        : fc.constantFrom("token", "other", "report.txt");
    const spoiled = good.chain((id) => fc.constantFrom(...spoil(id)));
    return fc.oneof(
      often(
        20,
        good.map((text) => ({ text: asQuery(text), isRaw: false })),
      ),
      often(
        1,
        spoiled.map((text) => ({ text: asQuery(text), isRaw: text === "" })),
      ),
      often(
        1,
        anyText.map((text) => ({ text: asQuery(text), isRaw: text === "" || /^\.+$/.test(text) })),
      ),
      often(
        1,
        fc.constantFrom(...RAW_SEGMENTS).map((text) => ({ text, isRaw: true })),
      ),
    );
  };

  const queryOf = (parameters: readonly Parameter[]): fc.Arbitrary<string> => {
    const good = fc.record(Object.fromEntries(parameters.map(({ name, schema }) => [name, value(schema as Shape, name)])), {
      requiredKeys: parameters.filter(({ required }) => required).map(({ name }) => name),
    });
    const names = [...parameters.map(({ name }) => name), "surprise", ...PROTOTYPE_NAMES];
    const wrong = fc.tuple(fc.constantFrom(...names.filter((name) => name !== "wait")), fc.oneof(anyText, fc.constantFrom("0", "-1", "101", "1e3", "9".repeat(30), "true")));
    return fc
      .tuple(good, rarely(fc.array(wrong, { minLength: 1, maxLength: 2 }), parameters.length > 0 ? 3 : 10), rarely(fc.constantFrom(...RAW_QUERIES), 15))
      .map(([record, more, raw]) =>
        [...Object.entries(record), ...(more ?? [])]
          .map(([name, one]) => `${asQuery(name)}=${asQuery(String(one))}`)
          .concat(raw ?? [])
          .join("&"),
      );
  };

  const bodyOf = (shape: Shape | undefined): fc.Arbitrary<Uint8Array | null> => {
    const good = shape ? value(shape) : fc.constant(null);
    const damaged = fc.tuple(good, fc.array(damage, { minLength: 1, maxLength: 2 })).map(([body, all]) => all.reduce((now, change) => change(now), body));
    const text = fc.oneof(often(4, good), often(5, damaged)).map((body) => JSON.stringify(body) ?? "");
    const whole = fc.oneof(
      often(
        8,
        text.map((one) => Buffer.from(one)),
      ),
      often(
        2,
        fc.tuple(text, textDamage).map(([one, change]) => bytesOf(change(one))),
      ),
    );
    return shape ? fc.oneof(often(30, whole), often(1, fc.constant(null))) : rarely(whole, 20);
  };

  const authorization = fc.oneof(
    often(
      3,
      fc.constantFrom(...world.otherKeys).map((key) => `Bearer ${key}`),
    ),
    often(
      1,
      fc.constantFrom(
        "",
        "Bearer",
        "Bearer ",
        `bearer ${world.key}`,
        `Bearer  ${world.key}`,
        `Basic ${world.key}`,
        `Bearer ${world.key}, Bearer ${world.key}`,
        `Bearer ${world.key.toUpperCase()}`,
      ),
    ),
    often(
      1,
      headerText.map((text) => `Bearer ${text}`),
    ),
  );

  const requestOf = ([name, operation]: readonly [string, Operation]): fc.Arbitrary<FuzzRequest> => {
    const [ownMethod = "", template = ""] = name.split(" ");
    const parameters = operation.parameters ?? [];
    const segments = template.split("/").slice(1);
    return fc
      .record({
        method: rarely(fc.constantFrom(...METHODS), 15),
        path: fc.tuple(
          ...segments.map((part) => {
            const parameter = /^\{(\w+)\}$/.exec(part)?.[1];
            return parameter ? segment(parameters.find((p) => p.in === "path" && p.name === parameter)) : fc.constant({ text: part, isRaw: false });
          }),
        ),
        tail: rarely(fc.constantFrom("/", "//", "/.", ";x", "%00"), 60),
        query: queryOf(parameters.filter((p) => p.in === "query")),
        body: bodyOf(operation.requestBody?.content["application/json"]?.schema as Shape | undefined),
        authorization: rarely(authorization, 12),
        odd: rarely(fc.array(oddHeader, { minLength: 1, maxLength: 3 }), 4),
      })
      .map(({ method, path, tail, query, body, authorization: given, odd }) => {
        const headers = new Map<string, string>(given === "" ? [] : [["authorization", given ?? `Bearer ${world.key}`]]);
        if (body) headers.set("content-type", "application/json");
        for (const [header, text] of odd ?? []) headers.set(header, text);
        return {
          operation: name,
          method: method ?? ownMethod,
          target: `/${path.map(({ text }) => text).join("/")}${tail ?? ""}${query && `?${query}`}`,
          headers: [...headers],
          body,
          isAtHome: (method ?? ownMethod) === ownMethod && tail === null && path.every(({ isRaw }) => !isRaw) && !headers.has("host"),
        };
      });
  };

  return fc.oneof(...OPERATIONS.map(requestOf));
}

/** The request as a line for a shell; the caller's key stands in `$KEY`. */
export function asCurl({ method, target, headers, body }: FuzzRequest, key: string): string {
  const quote = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`;
  const isPlain = body && Buffer.from(body).every((byte) => byte >= 32 && byte < 127);
  const parts = [
    body && !isPlain ? `printf %s ${quote(Buffer.from(body).toString("base64"))} | base64 -d | curl` : "curl",
    "-isS --path-as-is -X",
    method,
    `"$URL"${quote(target)}`,
    ...headers.map(([name, value]) => `-H ${value.includes(key) ? `"${name}: ${value.replace(key, "$KEY")}"` : quote(`${name}: ${value}`)}`),
    ...(body ? [`--data-binary ${isPlain ? quote(Buffer.from(body).toString()) : "@-"}`] : []),
  ];
  return parts.join(" ");
}
