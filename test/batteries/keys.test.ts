import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { SCOPES } from "../../shared/access/caller.ts";
import { capabilitySigner } from "../../shared/access/capability-token.ts";
import { newId } from "../../shared/ids.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";
import { addressOf, byName, GUARDED, idPrefixesOf, pathOf, randomIdLike, sampleBody } from "./declared.ts";
import { plantOneOfEach } from "./foreign.ts";
import { expectRateHeaders, expectRefusal } from "./refusal.ts";
import { expectNothingWritten } from "./row-counts.ts";

let platform: TestPlatform;
let own: TestTenant;
let foreign: TestTenant;
let strangers: Record<string, string>;
/** Something of each kind that belongs to the foreign tenant */
let foreignIds: Record<string, string>;

beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo], withBridge: false });
  own = await platform.tenant();
  foreign = await platform.tenant();
  const expired = await own.mintKey({ expiresAt: new Date(Date.now() - 1_000) });
  const created = await own.api("POST", "/v1/api-keys", { scopes: ["tasks:read"] });
  await own.api("DELETE", `/v1/api-keys/${created.body.id}`);
  // Cached, so that a look-up by the printed prefix would let the look-alike in.
  await own.api("GET", "/v1/tasks");
  const tail = own.key.at(-1) === "0" ? "1" : "0";
  strangers = {
    "no header": "",
    "no token": "Bearer",
    "an empty token": "Bearer ",
    "another scheme": `Basic ${Buffer.from(`key:${own.key}`).toString("base64")}`,
    "a key without a scheme": own.key,
    "a key and more": `Bearer ${own.key} ${own.key}`,
    "two keys in one header": `Bearer ${own.key}, Bearer ${own.key}`,
    words: "Bearer let-me-in",
    "a short key": `Bearer ${own.key.slice(0, -1)}`,
    "a long key": `Bearer ${own.key}0`,
    "a key in capitals": `Bearer ${own.key.toUpperCase()}`,
    "the printed prefix": `Bearer ${own.key.slice(0, 16)}`,
    "a look-alike: same prefix, other tail": `Bearer ${own.key.slice(0, -1)}${tail}`,
    "the other environment": `Bearer ${own.key.replace("sk_live_", "sk_test_")}`,
    "an expired key": `Bearer ${expired.key}`,
    "a revoked key": `Bearer ${created.body.key}`,
    "the service token": `Bearer ${platform.serviceToken}`,
    "a capability token": `Bearer ${capabilitySigner(platform.env.CAPABILITY_KEY ?? "").mint({ aud: "llm", tenant: own.tenantId, task: newId("task"), attempt: 1, step: "main", plugin: "echo", version: "1.0.0", scopes: [], token_budget: 1, lease: newId("task"), exp: Date.now() + 60_000 })}`,
  };
  foreignIds = await plantOneOfEach(foreign, platform.db);
});
afterAll(() => platform?.stop());

const MALFORMED = [
  "x",
  "%00",
  "null",
  "-1",

  "%2f",
  "'",
  "%27%20OR%201=1--",
  "task_",
  "key_",
  "task_%00",
  "task_0",
  `task_${"z".repeat(26)}`,
  `task_${"0".repeat(27)}`,
  `TASK_${"0".repeat(26)}`,
  "%F0%9F%98%80",
  "%ff",
  "a".repeat(5_000),
  "{task_id}",
  "00000000-0000-0000-0000-000000000000",
];

describe.each(byName(GUARDED))("%s", (_, fn) => {
  const { method } = addressOf(fn);
  const body = fn.body ? sampleBody(fn) : undefined;
  const allButItsScope = () => own.mintKey({ scopes: SCOPES.filter((scope) => scope !== fn.scope) });

  it("refuses everybody without a living key in the same words, whatever else they send", async () => {
    await expectNothingWritten(platform.env.DATABASE_URL ?? "", async () => {
      for (const [who, authorization] of Object.entries(strangers)) {
        const headers: Record<string, string> = authorization === "" ? {} : { authorization };
        const tries = [
          await platform.call(method, pathOf(fn), { body, headers }),
          await platform.call(
            method,
            pathOf(fn, (prefix) => foreignIds[prefix] ?? ""),
            { body, headers },
          ),
          await platform.call(
            method,
            pathOf(fn, () => "not-an-id"),
            { body, headers },
          ),
          await platform.call(method, `${pathOf(fn)}?surprise=1&surprise=2`, { body, headers }),
          ...(fn.body
            ? [
                await platform.call(method, pathOf(fn), { rawBody: "{", headers }),
                await platform.call(method, pathOf(fn), { rawBody: "plain", headers: { ...headers, "content-type": "text/plain" } }),
                await platform.call(method, pathOf(fn), { rawBody: "", headers }),
              ]
            : []),
        ];
        const said = tries.map((answer) => expectRefusal(answer, "AUTH_INVALID", who));
        for (const answer of tries) {
          expect(answer.headers.get("www-authenticate"), who).toBe("Bearer");
          expect(answer.headers.get("x-ratelimit-limit"), who).toBeNull();
        }
        for (const other of said) expect(other).toEqual(said[0]);
      }
    });
  });

  // Where any key may ask, the handler says who may have what.
  it.skipIf(fn.scope === "any")("refuses a key without its scope before it looks at anything else", async () => {
    const { key } = await allButItsScope();
    await expectNothingWritten(platform.env.DATABASE_URL ?? "", async () => {
      const tries = [
        await platform.call(method, pathOf(fn), { key, body }),
        await platform.call(
          method,
          pathOf(fn, (prefix) => foreignIds[prefix] ?? ""),
          { key, body },
        ),
        await platform.call(
          method,
          pathOf(fn, () => "not-an-id"),
          { key, body },
        ),
        await platform.call(method, `${pathOf(fn)}?surprise=1`, { key, body }),
        ...(fn.body
          ? [
              await platform.call(method, pathOf(fn), { key, rawBody: "{" }),
              await platform.call(method, pathOf(fn), { key, rawBody: "x", headers: { "content-type": "text/plain" } }),
            ]
          : []),
      ];
      for (const answer of tries) {
        expect(expectRefusal(answer, "FORBIDDEN_SCOPE")).toMatchObject({ required_scope: fn.scope });
        expectRateHeaders(answer);
      }
    });
  });
});

/** Changes of what live and test work share, by the scopes that allow them; a test key may do its own tasks and keys. */
const SHARED_BY_LIVE_WORK = GUARDED.filter((fn) => addressOf(fn).method !== "GET" && !["any", "tasks:write", "tasks:read", "keys:admin", "knowledge:read"].includes(fn.scope));

describe.each(byName(SHARED_BY_LIVE_WORK))("%s", (_, fn) => {
  it("is no test key's to call", async () => {
    const { key } = await own.mintKey({ environment: "test" });
    await expectNothingWritten(platform.env.DATABASE_URL ?? "", async () => {
      const said = expectRefusal(await platform.call(addressOf(fn).method, pathOf(fn), { key, body: fn.body ? sampleBody(fn) : undefined }), "FORBIDDEN_SCOPE");
      expect(said.message).toContain("test key");
    });
  });
});

describe.each(byName(GUARDED.filter((fn) => idPrefixesOf(fn).length > 0)))("%s", (_, fn) => {
  const { method } = addressOf(fn);
  const body = fn.body ? sampleBody(fn) : undefined;

  it("answers 404 to another tenant's id exactly as to an id of nothing", async () => {
    for (const prefix of idPrefixesOf(fn)) expect(foreignIds[prefix], `a foreign ${prefix}`).toBeTruthy();
    await expectNothingWritten(platform.env.DATABASE_URL ?? "", async () => {
      const ofForeign = await own.api(
        method,
        pathOf(fn, (prefix) => foreignIds[prefix] ?? ""),
        body,
      );
      const ofNothing = await own.api(method, pathOf(fn, randomIdLike), body);
      expect(expectRefusal(ofForeign, "NOT_FOUND")).toEqual(expectRefusal(ofNothing, "NOT_FOUND"));
      const names = (answer: typeof ofForeign) => [...answer.headers.keys()].sort();
      expect(names(ofForeign)).toEqual(names(ofNothing));
      expectRateHeaders(ofForeign);
    });
    for (const [prefix, id] of Object.entries(foreignIds)) {
      const path = prefix === "task" ? `/v1/tasks/${id}` : null;
      if (path) expect((await foreign.api("GET", path)).status, "the owner still has it").toBe(200);
    }
  });
});

describe.each(byName(GUARDED.filter((fn) => fn.params)))("%s", (_, fn) => {
  const { method, path } = addressOf(fn);
  const body = fn.body ? sampleBody(fn) : undefined;

  it("answers 404 to what is no id and no name at all", async () => {
    await expectNothingWritten(platform.env.DATABASE_URL ?? "", async () => {
      for (const text of MALFORMED) {
        const answer = await own.api(method, path.replace(/\{\w+\}/g, text), body);
        expectRefusal(answer, "NOT_FOUND", text.slice(0, 60));
      }
    });
  });
});
