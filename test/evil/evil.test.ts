import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { circuitOf } from "../support/circuits.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";
import { EVIL, evilManifest, startEvil } from "./kinds.ts";

let platform: TestPlatform;
let neighbour: TestTenant;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo] });
  neighbour = await platform.tenant({ subscriptions: { echo: null } });
});
afterAll(() => platform?.stop());

async function registerEvil(kind: string, endpoint: string): Promise<void> {
  const answer = await fetch(`${platform.internalUrl}/internal/registry/register`, {
    method: "POST",
    headers: { authorization: `Bearer ${platform.serviceToken}`, "content-type": "application/json" },
    body: JSON.stringify({ manifest: evilManifest(kind), endpoint }),
  });
  expect(answer.status).toBe(201);
}

const say = (words: string) => neighbour.api("POST", "/v1/tasks", { command: words, plugin: "echo" }, { prefer: "wait=20" });

describe.each(EVIL)("a plugin that does wrong ($kind)", (evil) => {
  it("fails its own task and nothing else", async () => {
    const pod = await startEvil(evil);
    try {
      const name = `evil-${evil.kind}`;
      await registerEvil(evil.kind, pod.url);
      const tenant = await platform.tenant({ subscriptions: { [name]: null } });
      const others = await say("before");
      const command = `work for ${others.body.task_id}`;
      const [{ body }, meanwhile] = await Promise.all([tenant.api("POST", "/v1/tasks", { command, plugin: name }, { prefer: "wait=25" }), say("meanwhile")]);

      expect(meanwhile.body).toMatchObject({ status: "success", result: "meanwhile" });
      if (evil.error) {
        expect(body).toMatchObject({ status: "failed", result: null, error: { code: evil.error.code, cause: "plugin", message: expect.stringMatching(evil.error.message) } });
        expect(await circuitOf(platform.redis.url, name)).toEqual({ failures: "1" });
      } else {
        expect(body).toMatchObject({ status: "success", error: null, result: expect.stringMatching(/^fi.?ne$/u) });
        expect(body.result.isWellFormed() && !body.result.includes("\0")).toBe(true);
        expect(await circuitOf(platform.redis.url, name)).toEqual({});
      }

      const [event] = await platform.db.call<{ billable: boolean; tokens_used: string }>("SELECT billable, tokens_used FROM execution_events WHERE tenant_id = $1", [
        tenant.tenantId,
      ]);
      expect(event).toEqual({ billable: evil.error === null, tokens_used: "0" });
      const [usage] = await platform.db.call<{ used: number; reserved: number }>("SELECT used, reserved FROM usage_periods WHERE tenant_id = $1", [tenant.tenantId]);
      expect(usage).toEqual({ used: evil.error ? 0 : 1, reserved: 0 });
      expect((await neighbour.api("GET", `/v1/tasks/${others.body.task_id}`)).body).toMatchObject({ status: "success", result: "before" });
      expect("admin" in {}).toBe(false);
    } finally {
      await pod.stop();
    }
    expect((await say("after")).body).toMatchObject({ status: "success", result: "after" });
  }, 60_000);
});
