/**
 * No connection to an address inside, by any spelling and by any trick of names: canaries listen on every loopback address, and whatever reaches
 * one of them is a failure. Take the check of the address out, or look a name up twice, and these go red.
 */
import type { LookupAddress } from "node:dns";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import pg from "pg";
import { request } from "undici";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openEgress } from "../../shared/egress/outbound-post.ts";
import { parseId } from "../../shared/ids.ts";
import { guardedAgent, type Lookup } from "../../shared/sdk/src/guarded-connect.ts";
import { guardedFetch } from "../../shared/sdk/src/guarded-fetch.ts";
import { readOutboundUrl } from "../../shared/sdk/src/outbound-url.ts";
import { startTestPlatform, type TestPlatform } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";
import { ALLOWED_URLS, INNER_HOSTS, REFUSED_URLS } from "./addresses.ts";

const SHORT_MS = 1_500;
const signal = () => AbortSignal.timeout(SHORT_MS);
let canary: Server;
let port: number;
let connections = 0;

beforeAll(async () => {
  canary = createServer((_, response) => response.end("inside"));
  canary.on("connection", () => {
    connections += 1;
  });
  // Every address of this machine, of both families.
  await new Promise<void>((resolve) => canary.listen(0, "::", resolve));
  port = (canary.address() as AddressInfo).port;
});
afterAll(() => canary?.close());

async function untouched(work: () => Promise<unknown>): Promise<void> {
  const before = connections;
  await work();
  expect(connections - before, "connections at the canary").toBe(0);
}

/** A resolver that says what it is told, one answer after the other, and keeps count. */
function saying(...answers: (string[] | Error)[]): Lookup & { asked: number } {
  const lookup = Object.assign(
    ((_, __, done) => {
      const answer = answers[Math.min(lookup.asked, answers.length - 1)] ?? [];
      lookup.asked += 1;
      if (answer instanceof Error) done(answer, []);
      else
        done(
          null,
          answer.map((address): LookupAddress => ({ address, family: address.includes(":") ? 6 : 4 })),
        );
    }) as Lookup,
    { asked: 0 },
  );
  return lookup;
}
/** Public by the registries, and announced to nobody: addresses that are kept for documents are refused. */
const OUTSIDE = "25.1.2.3";

describe("a URL that is to be stored", () => {
  it("is refused in each of 200 spellings", () => {
    expect(REFUSED_URLS.length).toBeGreaterThan(200);
    const through = REFUSED_URLS.filter((url) => "url" in readOutboundUrl(url, { allowPrivate: false }));
    expect(through).toEqual([]);
  });

  it("is taken just outside of what is refused", () => {
    const refused = ALLOWED_URLS.filter((url) => "problem" in readOutboundUrl(url, { allowPrivate: false }));
    expect(refused).toEqual([]);
  });
});

describe("a connection", () => {
  it("is not made to any of the inner hosts, however it is spelled, though nobody looked at the URL before", async () => {
    const agent = guardedAgent({ allowPrivate: false, connectTimeoutMs: SHORT_MS });
    const spelled = INNER_HOSTS.map((host) => `http://${host}:${port}/`).filter((url) => URL.canParse(url));
    await untouched(async () => {
      const ends = await Promise.all(
        spelled.map((url) =>
          request(url, { dispatcher: agent, signal: signal() }).then(
            () => url,
            () => null,
          ),
        ),
      );
      expect(ends.filter(Boolean)).toEqual([]);
    });
    await agent.destroy();
    // The canary would have heard: without the guard, many of these spellings reach it.
    const before = connections;
    for (const url of spelled.slice(0, 12)) await request(url, { signal: signal() }).catch(() => {});
    expect(connections).toBeGreaterThan(before);
  });

  const tricks: [string, ...Parameters<typeof saying>][] = [
    ["a name with a private address", ["127.0.0.1"]],
    ["a name with a public and a private address", [OUTSIDE, "127.0.0.1"]],
    ["a name with a private and a public address", ["127.0.0.1", OUTSIDE]],
    ["a name whose IPv6 address is inside, with a public IPv4 address", [OUTSIDE, "::1"]],
    ["a name with an IPv4-mapped address", ["::ffff:127.0.0.1"]],
    ["a name with a translated address", ["64:ff9b::7f00:1"]],
    ["a name with the metadata address", ["169.254.169.254"]],
    ["a name with the address of no host", ["0.0.0.0"]],
    ["a name that has no address, and then a private one", Object.assign(new Error("no such name"), { code: "ENOTFOUND" }), ["127.0.0.1"]],
    ["a name with an empty answer", []],
    ["a name with an answer that is no address", ["127.1"]],
    ["a name that is rebound: public when it is first asked for, private after", [OUTSIDE], ["127.0.0.1"]],
  ];
  it.each(tricks)("is not made for %s", async (_, ...answers) => {
    const lookup = saying(...answers);
    const agent = guardedAgent({ allowPrivate: false, connectTimeoutMs: 300, lookup });
    await untouched(async () => {
      for (let i = 0; i < 3; i++)
        await request(`http://rebind.aau.io:${port}/`, { dispatcher: agent, signal: signal() }).then(
          () => expect.fail("answered"),
          () => {},
        );
    });
    // One look-up a connection: what was judged is what is connected to.
    expect(lookup.asked).toBeLessThanOrEqual(3);
    await agent.destroy();
  });

  it("does not go through a proxy that the environment names", async () => {
    const names = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"];
    for (const name of names) process.env[name] = `http://127.0.0.1:${port}`;
    try {
      const egress = openEgress({ allowPrivate: false }, saying([OUTSIDE]));
      await untouched(() => egress.post("https://hooks.aau.io/", { headers: {}, body: "{}", timeoutMs: 300, signal: signal() }));
      await egress.close();
    } finally {
      for (const name of names) delete process.env[name];
    }
  });

  it("follows no redirect", async () => {
    for (const status of [301, 302, 303, 307, 308]) {
      const redirecting = createServer((_, response) => response.writeHead(status, { location: `//127.0.0.1:${port}/` }).end());
      await new Promise<void>((resolve) => redirecting.listen(0, "127.0.0.1", resolve));
      const url = `http://127.0.0.1:${(redirecting.address() as AddressInfo).port}/`;
      const egress = openEgress({ allowPrivate: true });
      await untouched(async () => {
        expect(await egress.post(url, { headers: {}, body: "{}", timeoutMs: SHORT_MS, signal: signal() })).toMatchObject({ status });
        expect((await guardedFetch({ allowPrivate: true })(url, { signal: signal() })).status).toBe(status);
      });
      await egress.close();
      redirecting.closeAllConnections();
      redirecting.close();
    }
  });
});

describe("every place that takes a URL", () => {
  let platform: TestPlatform;
  beforeAll(async () => {
    platform = await startTestPlatform({ plugins: [echo] });
  });
  afterAll(() => platform?.stop());

  it("refuses it when it is stored: a new webhook, a changed one, an attachment", async () => {
    const tenant = await platform.tenant();
    const { body: webhook } = await tenant.api("POST", "/v1/webhooks", { url: "https://hooks.aau.io/", events: ["task.completed"] });
    await untouched(async () => {
      for (const url of REFUSED_URLS) {
        const answers = [
          await tenant.api("POST", "/v1/webhooks", { url, events: ["task.completed"] }),
          await tenant.api("PATCH", `/v1/webhooks/${webhook.webhook_id}`, { url }),
          await tenant.api("POST", "/v1/tasks", { command: "say", plugin: "echo", attachments: [{ name: "a", media_type: "text/plain", url }] }),
        ];
        expect(
          answers.map(({ status }) => status),
          url,
        ).toEqual([422, 422, 422]);
      }
    });
    expect((await tenant.api("GET", "/v1/webhooks")).body.webhooks).toEqual([expect.objectContaining({ url: "https://hooks.aau.io/" })]);
  });

  it("refuses it when it is called, wherever it came from: a delivery, one that is sent again, a plugin", async () => {
    const tenant = await platform.tenant();
    const admin = new pg.Client({ connectionString: platform.env.DATABASE_URL });
    await admin.connect();
    try {
      const { body: webhook } = await tenant.api("POST", "/v1/webhooks", { url: "https://hooks.aau.io/", events: ["quota.warning"] });
      const id = parseId("webhook", webhook.webhook_id);
      await admin.query("SELECT enqueue_webhook_event($1, 'quota.warning', 'x', '{}')", [tenant.tenantId]);
      const fetch = guardedFetch({ allowPrivate: false });
      await untouched(async () => {
        for (const host of ["127.0.0.1", "localhost", "[::1]", "0x7f000001", "127.1"]) {
          const url = `https://${host}:${port}/`;
          await expect(fetch(url, { signal: signal() }), url).rejects.toThrow(/URL/);
          // Stored before the rules were what they are.
          await admin.query("UPDATE webhooks SET url = $2, resume_at = NULL WHERE id = $1", [id, url]);
          const [{ delivery_id } = { delivery_id: "" }] = (await tenant.api("GET", `/v1/webhooks/${webhook.webhook_id}/deliveries`)).body.deliveries;
          const before = await attempts();
          expect((await tenant.api("POST", `/v1/webhooks/${webhook.webhook_id}/deliveries/${delivery_id}/redeliver`)).status).toBe(202);
          await expect.poll(attempts, { timeout: 20_000 }).toBeGreaterThan(before);
        }
      });
      const { rows } = await admin.query("SELECT DISTINCT error FROM webhook_attempts WHERE tenant_id = $1", [tenant.tenantId]);
      expect(rows).toEqual([{ error: "address_not_allowed" }]);
    } finally {
      await admin.end();
    }
    async function attempts(): Promise<number> {
      return (await admin.query("SELECT 1 FROM webhook_attempts WHERE tenant_id = $1", [tenant.tenantId])).rows.length;
    }
  });
});
