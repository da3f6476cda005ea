import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type LocalRedis, startRedis } from "../../scripts/local/redis.ts";
import { claimTask } from "../../shared/execution/claim-task.ts";
import { asId, parseId } from "../../shared/ids.ts";
import { CallerMistake, definePlugin, node, type PluginDefinition } from "../../shared/sdk/src/index.ts";
import { circuitOf, forgetCircuits, passTime } from "../support/circuits.ts";
import { quotaOf } from "../support/money-rows.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";

const State = Annotation.Root({ command: Annotation<string>(), text: Annotation<string>() });
type Held = typeof State.State;

/** What these plugins do; a test changes it. */
const behaviour = { primary: "fails" as "fails" | "works" | "refuses", standIn: "works" as "fails" | "works" };

function pluginThat(name: string, work: (command: string) => string, more: Partial<PluginDefinition<Held>> = {}) {
  return definePlugin({
    name,
    version: "1.0.0",
    description: "Does as a test says.",
    capabilities: [`do as a test says by ${name}`],
    category: "testing",
    estimatedLatency: "medium",
    maxRetries: 0,
    graph: new StateGraph(State)
      .addNode(
        "work",
        node(async ({ command }: Held) => ({ text: work(command) })),
      )
      .addEdge(START, "work")
      .addEdge("work", END),
    start: (input) => ({ command: input.task_description }),
    finish: ({ text }: Held) => ({ status: "success", result: text, confidence: 1 }),
    ...more,
  });
}
const primary = pluginThat(
  "primary",
  (command) => {
    if (behaviour.primary === "fails") throw new Error("this plugin is broken");
    return `primary: ${command}`;
  },
  {
    fallback: "stand-in",
    start: (input) => {
      if (behaviour.primary === "refuses") throw new CallerMistake("Send something else.");
      return { command: input.task_description };
    },
  },
);
const standIn = pluginThat("stand-in", (command) => {
  if (behaviour.standIn === "fails") throw new Error("this one as well");
  return `stand-in: ${command}`;
});
const old = pluginThat("old-one", (command) => command, { envelopeVersion: "1.0" });

let folder: string;
let redisAgain: LocalRedis | undefined;
let platform: TestPlatform;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "aau-ways-"));
  platform = await startTestPlatform({ plugins: [echo, primary, standIn, old] });
});
afterAll(async () => {
  await platform?.stop();
  await redisAgain?.stop();
  await rm(folder, { recursive: true, force: true });
});
beforeEach(async () => {
  behaviour.primary = "fails";
  behaviour.standIn = "works";
  await forgetCircuits(platform.redis.url);
});

const submit = (tenant: TestTenant, plugin: string, more: Record<string, unknown> = {}, wait = 20) =>
  tenant.api("POST", "/v1/tasks", { command: "go", plugin, ...more }, { prefer: `wait=${wait}` });

/** What the bridge would deliver. */
function deliver(taskId: string): Promise<Response> {
  const url =
    platform.platform.functionUrls
      .split(",")
      .find((pair) => pair.startsWith("task-execute="))
      ?.slice("task-execute=".length) ?? "";
  return fetch(url, {
    method: "POST",
    headers: {
      authorization: `Bearer ${platform.serviceToken}`,
      "content-type": "application/json",
      "ce-specversion": "1.0",
      "ce-id": "1",
      "ce-source": "/test",
      "ce-type": "io.aau.task.queued",
    },
    body: JSON.stringify({ task_id: taskId }),
  });
}

describe("a plugin on its way out", () => {
  const inside = (name: string, body: object) =>
    fetch(`${platform.internalUrl}/internal/registry/${name}/lifecycle`, {
      method: "POST",
      headers: { authorization: `Bearer ${platform.serviceToken}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  const guideOf = (name: string) => `https://docs.example.com/instead-of-${name}`;
  const deprecated = async (names: string[], work: () => Promise<void>) => {
    for (const name of names) expect((await inside(name, { status: "deprecated", migration_guide_url: guideOf(name) })).status).toBe(200);
    await work();
    for (const name of names) await inside(name, { status: "active" });
  };
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of every shape.
  const codes = (body: any) => body.warnings.map(({ code }: { code: string }) => code).sort();

  it("is named with its guide when a fallback answers for it, and so is a fallback that is", async () => {
    const tenant = await platform.tenant();
    await deprecated(["primary"], async () => {
      const { body } = await submit(tenant, "primary");
      expect(body).toMatchObject({ status: "success", result: "stand-in: go", migration_guide_url: guideOf("primary") });
      expect(body.deprecation_warning).toMatch(/^primary is deprecated/);
      expect(codes(body)).toEqual(["FALLBACK_USED", "PLUGIN_DEPRECATED"]);
    });
    await deprecated(["stand-in"], async () => {
      const { body } = await submit(tenant, "primary");
      expect(body).toMatchObject({ status: "success", migration_guide_url: guideOf("stand-in") });
      expect(body.deprecation_warning).toMatch(/^stand-in is deprecated/);
      expect(codes(body)).toEqual(["FALLBACK_USED", "PLUGIN_DEPRECATED"]);
    });
    await deprecated(["primary", "stand-in"], async () => {
      const { body } = await submit(tenant, "primary");
      expect(body.deprecation_warning).toMatch(/stand-in is deprecated.* primary is deprecated/);
      expect(body.migration_guide_url).toBe(guideOf("stand-in"));
    });
    expect((await submit(tenant, "primary")).body).toMatchObject({ deprecation_warning: null, migration_guide_url: null });
  });

  it("is named with its guide by a task that it failed without a word", async () => {
    const name = "silent-one";
    await using babbling = createServer((_, response) => response.writeHead(200, { "content-type": "application/json" }).end("{}")).listen(0, "127.0.0.1");
    await once(babbling, "listening");
    const { port } = babbling.address() as AddressInfo;
    await platform.register({ ...standIn, manifest: { ...standIn.manifest, name } }, `http://127.0.0.1:${port}`);
    const tenant = await platform.tenant({ subscriptions: { [name]: null } });
    await deprecated([name], async () => {
      const { body } = await submit(tenant, name);
      expect(body).toMatchObject({ status: "failed", result: null, data: null, confidence: null, migration_guide_url: guideOf(name), error: { cause: expect.any(String) } });
      expect(body.deprecation_warning).toMatch(/^silent-one is deprecated/);
      expect(codes(body)).toEqual(["PLUGIN_DEPRECATED"]);
    });
  });
});

describe("a plugin whose manifest names a fallback", () => {
  it("is stood in for when it fails: a warning says so, and the execution is the fallback's", async () => {
    const tenant = await platform.tenant();
    const { body } = await submit(tenant, "primary");
    expect(body).toMatchObject({ status: "success", result: "stand-in: go", error: null });
    expect(body.warnings).toEqual([{ code: "FALLBACK_USED", message: "primary 1.0.0 could not answer (INTERNAL); stand-in 1.0.0 did." }]);
    const events = await platform.db.call("SELECT plugin_name, plugin_version, billable FROM execution_events WHERE tenant_id = $1", [tenant.tenantId]);
    expect(events).toEqual([{ plugin_name: "stand-in", plugin_version: "1.0.0", billable: true }]);
    const [task] = await platform.db.call("SELECT fallbacks FROM tasks WHERE tenant_id = $1", [tenant.tenantId]);
    expect(task).toMatchObject({ fallbacks: { main: { plugin: "stand-in", version: "1.0.0" } } });
    expect(await quotaOf(platform, tenant)).toEqual({ primary: [0, 0], "stand-in": [1, 0] });
    expect(await circuitOf(platform.redis.url, "primary")).toEqual({ failures: "1" });
    expect(await circuitOf(platform.redis.url, "stand-in")).toEqual({});
  });

  it("is stood in for while its circuit is open, without being called", async () => {
    const tenant = await platform.tenant();
    for (let i = 0; i < 3; i++) await submit(tenant, "primary");
    behaviour.primary = "works";
    const { body } = await submit(tenant, "primary");
    expect(body).toMatchObject({ status: "success", result: "stand-in: go", warnings: [{ code: "FALLBACK_USED" }] });
    await passTime(platform.redis.url, "primary", "until");
    expect((await submit(tenant, "primary")).body).toMatchObject({ result: "primary: go", warnings: [] });
  });

  it("is not stood in for by a fallback whose quota is used up, and both give their reservations back", async () => {
    const tenant = await platform.tenant({ subscriptions: { primary: null, "stand-in": 1 } });
    expect((await submit(tenant, "primary")).body.status).toBe("success");
    expect((await submit(tenant, "primary")).body).toMatchObject({ status: "failed", error: { code: "INTERNAL" } });
    behaviour.standIn = "fails";
    const other = await platform.tenant();
    await submit(other, "primary");
    expect([await quotaOf(platform, tenant), await quotaOf(platform, other)]).toEqual([
      { primary: [0, 0], "stand-in": [1, 0] },
      { primary: [0, 0], "stand-in": [0, 0] },
    ]);
  });

  it("fails as itself when the fallback fails too", async () => {
    behaviour.standIn = "fails";
    const { body } = await submit(await platform.tenant(), "primary");
    expect(body).toMatchObject({ status: "failed", error: { code: "INTERNAL", cause: "plugin", message: expect.stringContaining("node work") } });
  });

  it("fails as itself when the tenant is not subscribed to the fallback", async () => {
    const { body } = await submit(await platform.tenant({ subscriptions: { primary: null } }), "primary");
    expect(body).toMatchObject({ status: "failed", error: { code: "INTERNAL", cause: "plugin" } });
  });

  it("is not stood in for when the caller made the mistake", async () => {
    behaviour.primary = "refuses";
    const { body } = await submit(await platform.tenant(), "primary");
    expect(body).toMatchObject({ status: "failed", error: { code: "INVALID_INPUT", cause: "caller", message: "Send something else." } });
    expect(await circuitOf(platform.redis.url, "primary")).toEqual({});
  });

  it("keeps the fallback's version for later attempts of the task", async () => {
    const tenant = await platform.tenant();
    const { body } = await submit(tenant, "primary");
    const id = parseId("task", body.task_id);
    const lease = crypto.randomUUID();
    await platform.db.platform((tx) =>
      tx
        .updateTable("tasks")
        .set({ status: "running", lease_token: lease })
        .where("id", "=", id ?? "")
        .execute(),
    );
    await platform.register({ ...standIn, manifest: { ...standIn.manifest, version: "2.0.0" } }, "http://127.0.0.1:9");
    const lock = (step: string, token = lease) => platform.db.call("SELECT plugin, version FROM lock_fallback($1, $2, $3, $4, 'stand-in')", [tenant.tenantId, id, token, step]);
    expect(await lock("main")).toEqual([{ plugin: "stand-in", version: "1.0.0" }]);
    expect(await lock("another")).toEqual([{ plugin: "stand-in", version: "2.0.0" }]);
    expect(await lock("main", crypto.randomUUID())).toEqual([]);
    const stranger = await platform.tenant();
    expect(await platform.db.call("SELECT plugin FROM lock_fallback($1, $2, $3, 'main', 'stand-in')", [stranger.tenantId, id, lease])).toEqual([]);
  });
});

describe("a plugin that fails three times in a row", () => {
  it("is not called for a minute; tasks for it wait and say so, and everybody can see it", async () => {
    const tenant = await platform.tenant({ subscriptions: { primary: null } });
    for (let i = 0; i < 3; i++) expect((await submit(tenant, "primary")).body.status).toBe("failed");
    behaviour.primary = "works";
    const waiting = await submit(tenant, "primary", {}, 1);
    expect([waiting.status, waiting.body.status]).toEqual([202, "queued"]);
    await expect
      .poll(() =>
        platform.db.call<{ hand_backs: number; next_ms: number }>(
          "SELECT hand_backs, extract(epoch FROM next_ring_at - now())::float8 * 1000 AS next_ms FROM tasks WHERE id = $1 AND status = 'queued' AND hand_backs = 1",
          [parseId("task", waiting.body.task_id)],
        ),
      )
      .toMatchObject([{ hand_backs: 1 }]);

    const circuits = async () => {
      const list = await tenant.api("GET", "/v1/plugins");
      const [detail, health] = await Promise.all([tenant.api("GET", "/v1/plugins/primary"), tenant.api("GET", "/v1/plugins/primary/health")]);
      return [list.body.plugins.find(({ name }: { name: string }) => name === "primary").circuit, detail.body.circuit, health.body.circuit];
    };
    expect(await circuits()).toEqual(["open", "open", "open"]);
    expect(await platform.bridgeMetrics.registry.getSingleMetricAsString("aau_circuit_breaker_state")).toContain('aau_circuit_breaker_state{plugin="primary",version="1.0.0"} 2');

    const hurried = await submit(tenant, "primary", { deadline: new Date(Date.now() + 5_000).toISOString() });
    expect(hurried.body).toMatchObject({ status: "failed", error: { code: "PLUGIN_UNAVAILABLE", cause: "plugin", retry_after_seconds: expect.any(Number) } });

    await passTime(platform.redis.url, "primary", "until");
    expect(await circuits()).toEqual(["half_open", "half_open", "half_open"]);
    expect((await submit(tenant, "primary")).body).toMatchObject({ status: "success", result: "primary: go" });
    expect(await circuits()).toEqual(["closed", "closed", "closed"]);
  }, 30_000);

  it("is opened by three unhealthy reports as well", async () => {
    const report = (status: string) =>
      fetch(`${platform.internalUrl}/internal/registry/echo/health`, {
        method: "POST",
        headers: { authorization: `Bearer ${platform.serviceToken}`, "content-type": "application/json" },
        body: JSON.stringify({ status }),
      });
    for (const status of ["unhealthy", "unhealthy", "healthy", "unhealthy", "unhealthy"]) await report(status);
    expect(await circuitOf(platform.redis.url, "echo")).toEqual({});
    await report("unhealthy");
    expect(await circuitOf(platform.redis.url, "echo")).toMatchObject({ state: "open" });
    await report("healthy");
  });
});

describe("a plugin on the older envelope", () => {
  it("works, and its results say that it is old", async () => {
    const { body } = await submit(await platform.tenant(), "old-one");
    expect(body).toMatchObject({ status: "success", result: "go", deprecation_warning: expect.stringContaining("old-one 1.0.0 speaks envelope 1.0") });
    expect((await submit(await platform.tenant(), "echo")).body).toMatchObject({ status: "success", deprecation_warning: null });
  });
});

describe("a task whose executors die", () => {
  it("fails after three of them, and is not run a fourth time", async () => {
    const tenant = await platform.tenant();
    const still = await submit(tenant, "primary");
    const id = asId("task", parseId("task", still.body.task_id) ?? "");
    // As if it had never run: three executors take it and are never heard of again.
    await platform.db.platform((tx) =>
      tx
        .updateTable("tasks")
        .set({ status: "queued", attempt: 0, completed_at: null, result: null } as never)
        .where("id", "=", id)
        .execute(),
    );
    await platform.db.platform((tx) =>
      tx
        .deleteFrom("task_steps" as never)
        .where("task_id" as never, "=", id as never)
        .execute(),
    );
    for (let i = 0; i < 3; i++) await expect.poll(async () => (await claimTask(platform.db, id, 1, 3)).outcome).toBe("claimed");
    expect((await deliver(still.body.task_id)).status).toBe(204);
    const { body } = await tenant.api("GET", `/v1/tasks/${still.body.task_id}`);
    expect(body).toMatchObject({ status: "failed", error: { code: "PLUGIN_UNAVAILABLE", cause: "platform", message: "3 executors in a row stopped while they ran this task." } });
  });
});

describe("without Redis", () => {
  it("a task runs as it would: the circuit counts as closed, and nobody waits for a signal", async () => {
    const tenant = await platform.tenant();
    await platform.redis.stop();
    const submitted = await tenant.api("POST", "/v1/tasks", { command: "slower, not lost", plugin: "echo" });
    expect(submitted.status).toBe(202);
    const answer = await deliver(submitted.body.task_id);
    expect(answer.status).toBe(204);
    expect((await tenant.api("GET", `/v1/tasks/${submitted.body.task_id}`)).body).toMatchObject({ status: "success", result: "slower, not lost" });
    expect((await tenant.api("GET", "/v1/plugins/echo")).body.circuit).toBe("closed");

    const unheard = await tenant.api("POST", "/v1/tasks", { command: "heard later", plugin: "echo" });
    redisAgain = await startRedis(folder, { persist: false, port: Number(new URL(platform.redis.url).port) });
    await platform.db.platform((tx) =>
      tx
        .updateTable("tasks")
        .set({ next_ring_at: new Date(0) } as never)
        .where("status", "=", "queued")
        .execute(),
    );
    await expect
      .poll(
        async () => {
          await platform.runCron("wake");
          return (await tenant.api("GET", `/v1/tasks/${unheard.body.task_id}`)).body.status;
        },
        { timeout: 15_000, interval: 300 },
      )
      .toBe("success");
  }, 30_000);
});
