/** The plugin on the real platform: its own process, the gateways, PostgreSQL. */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import plugin from "../../../functions/plugins/ticket-processor/ticket-processor.ts";
import { expectOk, freePort } from "../../../scripts/local/child.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../../support/platform.ts";
import { finding, reviewFile } from "./tickets-of.ts";

const SERVE = fileURLToPath(new URL("../../../scripts/local/plugin.ts", import.meta.url));
const SOURCE = fileURLToPath(new URL("../../../functions/plugins/ticket-processor/ticket-processor.ts", import.meta.url));

let platform: TestPlatform;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [plugin] });
});
afterEach(() => {
  globalThis.aauFailpoint = undefined;
});
afterAll(() => platform?.stop());

const review = reviewFile([
  finding({ line: 12 }),
  finding({ line: 40 }),
  finding({ path: "src/session.ts", rule: "insecure-random", message: "Math.random can be predicted.", line: 8 }),
]).map(({ origin: _origin, ...attachment }) => attachment);

async function run(tenant: TestTenant, command: string, attachments: unknown[] = []) {
  const { body, status } = await tenant.api("POST", "/v1/tasks", { command, plugin: "ticket-processor", attachments }, { prefer: "wait=25" });
  expect(status, JSON.stringify(body)).toBe(200);
  return body;
}
const ids = (body: { data: { tickets: { id: string }[] } }) => body.data.tickets.map(({ id }) => id);
const stored = (tenant: TestTenant) =>
  platform.db.platform((tx) => tx.selectFrom("tickets").select(["number", "title", "status"]).where("tenant_id", "=", tenant.tenantId).orderBy("number").execute());

describe("tickets of the built-in tracker", () => {
  it("are made once for each issue, and found again when the same issues come again", async () => {
    const tenant = await platform.tenant();
    const first = await run(tenant, "Create a ticket for each issue", review);
    expect(first).toMatchObject({ status: "success", data: { summary: { created: 3, known: 0 } } });
    expect(ids(first)).toEqual(["T-1", "T-2", "T-3"]);
    const second = await run(tenant, "Create a ticket for each issue", review);
    expect(second).toMatchObject({ status: "success", data: { summary: { created: 0, known: 3 } } });
    expect(ids(second)).toEqual(["T-1", "T-2", "T-3"]);
    expect(await stored(tenant)).toHaveLength(3);
  });

  it("go their way by commands, and keep their history", async () => {
    const tenant = await platform.tenant();
    await run(tenant, "Create a ticket for each issue", review);
    expect(await run(tenant, "what is the status of ticket T-2")).toMatchObject({
      data: { tickets: [{ id: "T-2", status: "open", outcome: "found", reference: "src/routes/files.ts:40" }] },
    });
    expect(await run(tenant, "start T-2")).toMatchObject({ data: { tickets: [{ status: "in_progress", outcome: "changed" }] } });
    expect(await run(tenant, "assign T-2 to anna")).toMatchObject({ data: { tickets: [{ assignee: "anna" }] } });
    expect(await run(tenant, "close T-1 and T-2")).toMatchObject({ data: { tickets: [{ status: "closed" }, { status: "closed" }] } });
    expect(await run(tenant, "close T-2")).toMatchObject({ data: { tickets: [{ outcome: "unchanged" }] } });
    expect(await run(tenant, "start T-2")).toMatchObject({ data: { tickets: [{ outcome: "refused", note: "it is closed; reopen it first" }] } });
    expect(ids(await run(tenant, "list open tickets"))).toEqual(["T-3"]);
    expect(ids(await run(tenant, "list closed tickets"))).toEqual(["T-2", "T-1"]);
    const history = await platform.db.platform((tx) =>
      tx.selectFrom("ticket_events").select(["type", "data"]).where("tenant_id", "=", tenant.tenantId).where("number", "=", 2).orderBy("id").execute(),
    );
    expect(history).toMatchObject([{ type: "created" }, { data: { status: "in_progress" } }, { data: { assignee: "anna" } }, { data: { status: "closed" } }]);
  });

  it("of an issue that comes back after its ticket was closed are new ones, and the old one cannot be opened beside it", async () => {
    const tenant = await platform.tenant();
    await run(tenant, "Create a ticket for each issue", review);
    await run(tenant, "close T-1");
    expect(ids(await run(tenant, "Create a ticket for each issue", review))).toEqual(["T-4", "T-2", "T-3"]);
    expect(await run(tenant, "reopen T-1")).toMatchObject({ data: { tickets: [{ outcome: "refused", status: "closed" }] } });
  });

  it("do not exist for another tenant", async () => {
    const [owner, stranger] = [await platform.tenant(), await platform.tenant()];
    await run(owner, "Create a ticket for each issue", review);
    expect(await run(stranger, "list all tickets")).toMatchObject({ data: { total: 0, tickets: [] } });
    for (const command of ["what is the status of T-1", "close T-1"])
      expect(await run(stranger, command)).toMatchObject({ status: "failed", error: { code: "INVALID_INPUT", message: "There is no ticket T-1." } });
    expect(ids(await run(stranger, "Create a ticket for each issue", review))).toEqual(["T-1", "T-2", "T-3"]);
    expect(await stored(owner)).toHaveLength(3);
  });
});

describe("filing the same issues", () => {
  it("many times at once makes one ticket of each, numbered without a gap", async () => {
    const tenant = await platform.tenant();
    const bodies = await Promise.all(Array.from({ length: 8 }, () => run(tenant, "Create a ticket for each issue", review)));
    for (const body of bodies) expect(ids(body)).toEqual(["T-1", "T-2", "T-3"]);
    expect(bodies.reduce((sum, body) => sum + body.data.summary.created, 0)).toBe(3);
    expect((await stored(tenant)).map(({ number }) => number)).toEqual([1, 2, 3]);
    await run(tenant, "create a ticket: the export hangs on Safari");
    expect((await stored(tenant)).map(({ number }) => number)).toEqual([1, 2, 3, 4]);
  });

  it("again after the gateway's answer was lost makes no second ticket, and tells of those that it made", async () => {
    const tenant = await platform.tenant();
    let hits = 0;
    globalThis.aauFailpoint = async (name) => {
      if (name === "tickets.after_create" && ++hits === 1) throw new Error("the answer is lost");
    };
    expect(await run(tenant, "Create a ticket for each issue", review)).toMatchObject({ data: { summary: { created: 3 } } });
    expect(hits).toBe(2);
    expect(await stored(tenant)).toHaveLength(3);
  });

  it("again after the plugin's process was killed between making the tickets and its answer makes no second ticket", async () => {
    const tenant = await platform.tenant();
    const port = await freePort();
    const env = { PATH: process.env.PATH, PORT: String(port), LLM_GATEWAY_URL: platform.internalUrl, SCOPE_GATEWAY_URL: platform.internalUrl };
    const start = () => spawn(process.execPath, ["--import", "tsx", SERVE, SOURCE], { env, stdio: "ignore" });
    const ready = async () => {
      for (;;) {
        if (
          await expectOk(`http://127.0.0.1:${port}/health/readiness`).then(
            () => true,
            () => false,
          )
        )
          return;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    };
    let child = start();
    await ready();
    const version = { ...plugin, manifest: { ...plugin.manifest, version: "1.0.1" } };
    await platform.register(version, `http://127.0.0.1:${port}`);
    let kills = 0;
    globalThis.aauFailpoint = async (name) => {
      if (name !== "tickets.after_create" || kills > 0) return;
      kills += 1;
      child.kill("SIGKILL");
      child = start();
      await ready();
    };
    try {
      const { body } = await tenant.api("POST", "/v1/tasks", { command: "Create a ticket for each issue", plugin: "ticket-processor", attachments: review });
      for (;;) {
        const { body: task } = await tenant.api("GET", `/v1/tasks/${body.task_id}?wait=20`);
        if (task.status === "queued" || task.status === "running") continue;
        expect(task).toMatchObject({ status: "success", data: { summary: { created: 3 } } });
        break;
      }
      expect(kills).toBe(1);
      expect((await stored(tenant)).map(({ number }) => number)).toEqual([1, 2, 3]);
    } finally {
      child.kill("SIGKILL");
    }
  });
});
