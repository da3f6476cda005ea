import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";
import { addressOf, byName, EVENTS, FUNCTIONS, GATEWAYS, PUBLIC, pathOf, SERVICE } from "./declared.ts";
import { expectRefusal } from "./refusal.ts";
import { expectNothingWritten } from "./row-counts.ts";

let platform: TestPlatform;
let own: TestTenant;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo], withBridge: false });
  own = await platform.tenant();
});
afterAll(() => platform?.stop());

const METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
const nothingWritten = (work: () => Promise<void>) => expectNothingWritten(platform.env.DATABASE_URL ?? "", work);
/** Of all routes that match the path: `/v1/things/search` is also one of `/v1/things/{id}`. */
const methodsOf = (path: string) => {
  const matches = (route: string) => {
    const [own, segments] = [route.split("/"), path.split("/")];
    return own.length === segments.length && own.every((part, i) => part === segments[i] || part.startsWith("{"));
  };
  const methods = PUBLIC.map(addressOf).flatMap((address) => (matches(address.path) ? [address.method] : []));
  return [...new Set(methods)].sort();
};

describe.each(byName(PUBLIC))("%s", (_, fn) => {
  it("answers other methods with 405 and says which there are", async () => {
    const allowed = methodsOf(addressOf(fn).path);
    await nothingWritten(async () => {
      for (const method of METHODS.filter((name) => !allowed.includes(name))) {
        const answer = await platform.call(method, pathOf(fn), { key: own.key, ...(method === "GET" ? {} : { body: {} }) });
        expectRefusal(answer, "METHOD_NOT_ALLOWED", method);
        expect(answer.headers.get("allow"), method).toBe(allowed.join(", "));
      }
    });
  });

  it("names every answer by the caller's request id, if it is one", async () => {
    const chosen = await platform.call(addressOf(fn).method, pathOf(fn), { headers: { "x-request-id": "my-request_0001" } });
    expect(chosen.headers.get("x-request-id")).toBe("my-request_0001");
    for (const bad of ["short", "with space 12345", "x".repeat(65), "semi;colon;12345"]) {
      const made = await platform.call(addressOf(fn).method, pathOf(fn), { headers: { "x-request-id": bad } });
      expect(made.headers.get("x-request-id"), bad).toMatch(/^req_/);
    }
  });
});

describe("what is not there", () => {
  it("answers 404 in the one format, with and without a key", async () => {
    const paths = [
      "/",
      "/v1",
      "/v1/",
      "/v2/tasks",
      "/V1/TASKS",
      "/v1/tasks/",
      "/v1//tasks",
      "/v1/tasks//events",
      "/v1/task",
      "/health",
      "/health/readiness",
      "/metrics",
      "/favicon.ico",
      "/.env",
      "/v1/tasks%2fx",
      "/docs/",
      "/openapi.yaml",
      `/${"a".repeat(4_000)}`,
      "/%00",
      "/%ff",
      "/%",
    ];
    await nothingWritten(async () => {
      for (const path of paths) {
        for (const method of ["GET", "POST", "DELETE"]) {
          for (const key of [undefined, own.key])
            expectRefusal(await platform.call(method, path, { key, ...(method === "POST" ? { body: { command: "x" } } : {}) }), "NOT_FOUND", `${method} ${path}`);
        }
      }
    });
  });
});

/** Addresses that must exist inside only, with a method each. */
const INSIDE: [string, string, string][] = FUNCTIONS.flatMap((fn): [string, string, string][] => {
  if (fn.kind === "gateway") return Object.keys(fn.routes).map((route) => [fn.name, route.split(" ")[0] ?? "", (route.split(" ")[1] ?? "").replace(/\{\w+\}/g, "sample")]);
  if (fn.kind === "http") return fn.scope === "service" ? [[fn.name, addressOf(fn).method, addressOf(fn).path.replace(/\{\w+\}/g, "sample")]] : [];
  return [
    [fn.name, "POST", "/"],
    [fn.name, "POST", `/functions/${fn.name}`],
  ];
});

describe.each(INSIDE)("%s at %s %s", (_, method, path) => {
  it("does not exist on the public address, whatever is sent", async () => {
    await nothingWritten(async () => {
      for (const authorization of [undefined, `Bearer ${own.key}`, `Bearer ${platform.serviceToken}`]) {
        const headers = { ...(authorization ? { authorization } : {}), "ce-id": "1", "ce-type": "io.aau.task.queued", "ce-source": "/x", "ce-specversion": "1.0" };
        expectRefusal(await platform.call(method, path, { headers, ...(method === "GET" ? {} : { body: {} }) }), "NOT_FOUND", path);
      }
    });
  });
});

describe.each([
  ...SERVICE.map((fn): [string, string, string] => [
    fn.name,
    addressOf(fn).method,
    addressOf(fn)
      .path.replace("{version}", "1.0.0")
      .replace(/\{\w+\}/g, "echo"),
  ]),
  ...EVENTS.map((fn): [string, string, string] => [fn.name, "POST", `/functions/${fn.name}`]),
  ...GATEWAYS.flatMap((fn) =>
    Object.keys(fn.routes).map((route): [string, string, string] => [fn.name, route.split(" ")[0] ?? "", (route.split(" ")[1] ?? "").replace(/\{\w+\}/g, "sample")]),
  ),
])("%s at %s %s", (_, method, path) => {
  it("refuses inside all that do not hold the right token", async () => {
    const serviceOnly = !/^\/internal\/(llm|scoped|chain)\//.test(path);
    const wrong = [
      "",
      "Bearer",
      "Bearer x",
      `Bearer ${own.key}`,
      `Bearer ${platform.serviceToken}x`,
      `Bearer ${platform.serviceToken.slice(0, -1)}`,
      `Basic ${platform.serviceToken}`,
      ...(serviceOnly ? [] : [`Bearer ${platform.serviceToken}`]),
    ];
    await nothingWritten(async () => {
      for (const authorization of wrong) {
        const answer = await fetch(`${platform.internalUrl}${path}`, {
          method,
          headers: { "content-type": "application/json", ...(authorization ? { authorization } : {}) },
          body: method === "GET" ? undefined : "{}",
        });
        expect(answer.status, authorization).toBe(401);
        const said = JSON.stringify(await answer.json());
        expect(said).not.toContain(platform.serviceToken);
      }
    });
  });
});
