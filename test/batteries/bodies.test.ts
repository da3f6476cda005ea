import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ErrorCode } from "../../shared/errors.ts";
import { type ApiAnswer, startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";
import { addressOf, byName, GUARDED, idPrefixesOf, operationOf, pathOf, randomIdLike, requiredMembers, sampleBody } from "./declared.ts";
import { expectRateHeaders, expectRefusal } from "./refusal.ts";
import { expectNothingWritten } from "./row-counts.ts";

let platform: TestPlatform;
let own: TestTenant;
/** Living things of the caller's own, so that only the body can be what is wrong. */
let ownIds: Record<string, string>;

beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo], withBridge: false });
  own = await platform.tenant();
  const task = await own.api("POST", "/v1/tasks", { command: "stays queued", plugin: "echo" });
  const key = await own.api("POST", "/v1/api-keys", { scopes: ["tasks:read"] });
  const user = await own.api("POST", "/v1/users", { email: "colleague@example.com", role: "viewer" });
  const webhook = await own.api("POST", "/v1/webhooks", { url: "https://hooks.aau.io/", events: ["quota.warning"] });
  ownIds = { task: task.body.task_id, key: key.body.id, usr: user.body.id, whk: webhook.body.webhook_id };
});
afterAll(() => platform?.stop());

const deep = (levels: number, open: string, close: string) => `${open.repeat(levels)}1${close.repeat(levels)}`;
const bytes = (...parts: (string | number[])[]) => new Uint8Array(Buffer.concat(parts.map((part) => Buffer.from(part as string))));

/** Every JSON type in the place of the whole body, and of each of its members. */
const WRONG_TYPES: unknown[] = [null, true, 0, -1, 1.5, 1e308, "", "text", [], [[]], [{}], { a: 1 }];

/** Functions whose sample names, in its address, what is not there in another way than an id is not. */
const SAMPLE_NAMES: Record<string, ErrorCode> = { "secret-put": "INVALID_INPUT", "erasure-request": "NOT_FOUND", "subscription-create": "NOT_FOUND" };

describe.each(byName(GUARDED.filter((fn) => fn.body)))("%s", (_, fn) => {
  const { method } = addressOf(fn);
  const path = () => pathOf(fn, (prefix) => ownIds[prefix] ?? randomIdLike(prefix));
  const limit = fn.maxBodyBytes ?? 64 * 1024;

  async function refuses(code: ErrorCode, what: string, rawBody: string | Uint8Array<ArrayBuffer>, message: RegExp, headers: Record<string, string> = {}): Promise<void> {
    const answer = await platform.call(method, path(), { key: own.key, rawBody, headers });
    expect(expectRefusal(answer, code, what).message, what).toMatch(message);
    expectRateHeaders(answer, what);
  }
  const nothingWritten = (work: () => Promise<void>) => expectNothingWritten(platform.env.DATABASE_URL ?? "", work);

  it("takes the document's own sample, but for what the sample names", async () => {
    const answer = await own.api(method, pathOf(fn), sampleBody(fn));
    if (answer.status >= 400) expectRefusal(answer, SAMPLE_NAMES[fn.name] ?? (idPrefixesOf(fn).length > 0 ? "NOT_FOUND" : "NO_MATCHING_PLUGIN"));
  });

  it("refuses bodies that are not JSON text by their headers", async () => {
    const good = JSON.stringify(sampleBody(fn));
    await nothingWritten(async () => {
      for (const type of [
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-16",
        "application/jsonp",
        "application/json, text/plain",
        "",
      ]) {
        await refuses("UNSUPPORTED_MEDIA_TYPE", type, bytes(good), /application\/json|UTF-8/, { "content-type": type });
      }
      const withoutType = await fetch(`${platform.publicUrl}${path()}`, { method, headers: { authorization: `Bearer ${own.key}` }, body: bytes(good) });
      expect(withoutType.status).toBe(415);
      await refuses("UNSUPPORTED_MEDIA_TYPE", "gzip", new Uint8Array(gzipSync(good)), /uncompressed/, { "content-encoding": "gzip" });
      for (const encoding of ["br", "deflate", "zstd", "gzip, gzip", "x"])
        await refuses("UNSUPPORTED_MEDIA_TYPE", encoding, bytes(good), /uncompressed/, { "content-encoding": encoding });
    });
  });

  it("refuses 10 MB, announced or not, and goes on answering", async () => {
    const huge = new Uint8Array(10 * 1024 * 1024).fill(32);
    await nothingWritten(async () => {
      await refuses("PAYLOAD_TOO_LARGE", "announced", huge, /larger than \d+ bytes/);
      const unannounced = await fetch(`${platform.publicUrl}${path()}`, {
        method,
        headers: { authorization: `Bearer ${own.key}`, "content-type": "application/json" },
        body: new Blob([huge]).stream(),
        duplex: "half",
      } as RequestInit);
      expect(unannounced.status).toBe(413);
      await refuses("PAYLOAD_TOO_LARGE", "one byte more", bytes(" ".repeat(limit + 1)), /larger than \d+ bytes/);
      await refuses("INVALID_INPUT", "just as long as may be", bytes(" ".repeat(limit)), /empty/);
    });
    expect((await own.api("GET", "/v1/tasks")).status).toBe(200);
  });

  it("tells nobody without a key how large a body may be", async () => {
    const answer = await platform.call(method, path(), { rawBody: new Uint8Array(10 * 1024 * 1024) });
    expectRefusal(answer, "AUTH_INVALID");
  });

  it("refuses what is not well-formed JSON in UTF-8", async () => {
    const good = JSON.stringify(sampleBody(fn));
    const cases: [string, string | Uint8Array<ArrayBuffer>, RegExp][] = [
      ["nothing", "", /empty/],
      ["blanks", " \n\t ", /empty/],
      ["half an object", good.slice(0, -1), /not valid JSON/],
      ["two objects", `${good}${good}`, /not valid JSON/],
      ["a comma too many", good.replace(/\}$/, ",}"), /not valid JSON/],
      ["single quotes", "{'command': 'x'}", /not valid JSON/],
      ["a comment", `/* x */${good}`, /not valid JSON/],
      ["NaN", '{"command": NaN}', /not valid JSON/],
      ["a word", "undefined", /not valid JSON/],
      ["a raw line break in text", '{"command": "a\nb"}', /not valid JSON/],
      ["UTF-8 that breaks off", bytes('{"command": "', [0xe2, 0x82], '"}'), /UTF-8/],
      ["an overlong form", bytes('{"command": "', [0xc0, 0xaf], '"}'), /UTF-8/],
      ["Latin-1", bytes('{"command": "', [0xe9], '"}'), /UTF-8/],
      ["UTF-16", new Uint8Array(Buffer.from(good, "utf16le")), /not valid JSON|NUL/],
      ["a byte order mark", bytes([0xef, 0xbb, 0xbf], good), /byte order mark/],
      ["a byte order mark of UTF-16", bytes([0xff, 0xfe], good), /UTF-8/],
    ];
    await nothingWritten(async () => {
      for (const [what, raw, message] of cases) await refuses("INVALID_INPUT", what, raw, message);
    });
  });

  it("refuses text that cannot be stored, in values and in names", async () => {
    await nothingWritten(async () => {
      for (const [what, text, message] of [
        ["NUL", "\\u0000", /NUL/],
        ["a high surrogate alone", "\\ud83d", /surrogate/],
        ["a low surrogate alone", "\\ude00", /surrogate/],
        ["surrogates in the wrong order", "\\ude00\\ud83d", /surrogate/],
      ] as const) {
        await refuses("INVALID_INPUT", `${what} in a value`, `{"command": "a${text}b", "description": "${text}"}`, message);
        await refuses("INVALID_INPUT", `${what} in a name`, `{"a${text}b": 1}`, message);
        await refuses("INVALID_INPUT", `${what} deep inside`, `{"attachments": [{"name": ["${text}"]}]}`, message);
      }
    });
  });

  it("refuses names that could poison an object", async () => {
    await nothingWritten(async () => {
      for (const name of ["__proto__", "constructor", "prototype"]) {
        await refuses("INVALID_INPUT", name, `{"${name}": {"isAdmin": true}}`, new RegExp(`${name} is not allowed`));
        await refuses("INVALID_INPUT", `${name} inside`, `{"attachments": [{"${name}": {"isAdmin": true}}]}`, new RegExp(`${name} is not allowed`));
        await refuses("INVALID_INPUT", `${name} escaped`, `{"\\u00${name.charCodeAt(0).toString(16)}${name.slice(1)}": 1}`, new RegExp(`${name} is not allowed`));
      }
      expect("isAdmin" in {}).toBe(false);
    });
  });

  it("refuses deep nesting without falling over it", async () => {
    await nothingWritten(async () => {
      for (const [open, close] of [
        ["[", "]"],
        ['{"a":', "}"],
      ] as const) {
        await refuses("INVALID_INPUT", `10,000 of ${open}`, deep(10_000, open, close), /nested more than 64 levels/);
        const million = deep(1_000_000, open, close);
        await refuses(million.length > limit ? "PAYLOAD_TOO_LARGE" : "INVALID_INPUT", `1,000,000 of ${open}`, million, /nested more than 64|larger than/);
        await refuses("INVALID_INPUT", `10,000 of ${open}, never closed`, open.repeat(10_000), /not valid JSON/);
        await refuses("INVALID_INPUT", `10,000 of ${open} as a member`, `{"command": ${deep(10_000, open, close)}}`, /nested more than 64 levels/);
      }
    });
  });

  it("refuses wrong types and unknown fields, and names the field", async () => {
    const sample = sampleBody(fn);
    await nothingWritten(async () => {
      for (const value of WRONG_TYPES.filter((value) => typeof value !== "object" || value === null || Array.isArray(value))) {
        await refuses("INVALID_INPUT", JSON.stringify(value), JSON.stringify(value), /must be a JSON object/);
      }
      for (const name of ["surprise", "tenant_id", "Command", "toString", "hasOwnProperty", ""]) {
        const raw = JSON.stringify({ ...sample, [name]: 1 });
        const answer = await platform.call(method, path(), { key: own.key, rawBody: raw });
        const said = expectRefusal(answer, "INVALID_INPUT", `unknown field ${name}`);
        expect(said.issues, name).toEqual([{ path: name, message: "is not a known field" }]);
      }
      for (const name of requiredMembers(fn)) {
        const { [name]: _, ...rest } = sample;
        const missing: ApiAnswer = await platform.call(method, path(), { key: own.key, body: rest });
        expect(expectRefusal(missing, "INVALID_INPUT", `without ${name}`).issues, name).toContainEqual({ path: name, message: "is required" });
      }
    });
  });

  it("refuses every wrong type in every field that the document shows", async () => {
    const fields = fieldTypes(fn);
    await nothingWritten(async () => {
      for (const [name, types] of Object.entries(fields)) {
        for (const value of WRONG_TYPES) {
          const type = value === null ? "null" : Array.isArray(value) ? "array" : typeof value;
          if (types.includes(type)) continue;
          const answer = await platform.call(method, path(), { key: own.key, body: { ...sampleBody(fn), [name]: value } });
          const said = expectRefusal(answer, "INVALID_INPUT", `${name}: ${JSON.stringify(value)}`);
          expect(said.message, `${name}: ${JSON.stringify(value)}`).toContain(`${name}: `);
        }
      }
    });
  });
});

describe.each(byName(GUARDED.filter((fn) => fn.query)))("%s", (_, fn) => {
  const { method } = addressOf(fn);
  const path = () => pathOf(fn, (prefix) => ownIds[prefix] ?? randomIdLike(prefix));

  it("refuses query parameters that are unknown, given twice, or not storable", async () => {
    const [known = ""] = queryNames(fn);
    const wrong = [
      "surprise=1",
      `${known}=1&${known}=1`,
      `${known}=1&${known}=2`,
      "__proto__=1",
      "constructor=1",
      "toString=1",
      "surprise=1&surprise=1",
      `${known}=%00`,
      "=1",
      "%00=1",
    ];
    await expectNothingWritten(platform.env.DATABASE_URL ?? "", async () => {
      for (const query of wrong) {
        const answer = await own.api(method, `${path()}?${query}`);
        expectRefusal(answer, "INVALID_INPUT", query);
        expectRateHeaders(answer, query);
      }
      const needed = (operationOf(fn).parameters ?? []).filter((p) => p.in === "query" && p.required).map((p) => `${p.name}=${Object(p.schema).examples?.[0] ?? "sample"}&`);
      const unknown = await own.api(method, `${path()}?${needed.join("")}constructor=1`);
      expect(expectRefusal(unknown, "INVALID_INPUT").message).toContain("constructor: is not a known field");
    });
  });
});

function queryNames(fn: (typeof GUARDED)[number]): string[] {
  const { entries } = Object(fn.query);
  return Object.keys(entries);
}

/** JSON types that each member of the body may have, as the document says. */
function fieldTypes(fn: (typeof GUARDED)[number]): Record<string, string[]> {
  const { entries } = Object(fn.body);
  const of = (schema: { type: string; wrapped?: never; options?: never[]; pipe?: unknown[] }): string[] => {
    if (schema.type === "custom") return (schema.pipe ?? []).flatMap((item) => Object(Object(item).metadata).type ?? []);
    if (schema.type === "optional") return of(Object(schema.wrapped));
    if (schema.type === "nullable") return ["null", ...of(Object(schema.wrapped))];
    if (schema.type === "union") return (schema.options ?? []).flatMap(of);
    if (schema.type === "picklist") return ["string"];
    if (schema.type === "record" || schema.type.endsWith("object")) return ["object"];
    return [schema.type];
  };
  return Object.fromEntries(Object.entries(entries).map(([name, schema]) => [name, of(Object(schema))]));
}
