import { Redis } from "ioredis";
import pg from "pg";
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from "vitest";
import { replay } from "../../scripts/erasure-replay.ts";
import { SCOPES } from "../../shared/access/caller.ts";
import { asId, type ErasureId, newId, parseId, publicId, type UserId } from "../../shared/ids.ts";
import { TASK_TABLES, USER_TABLES } from "../../shared/privacy/erase-rows.ts";
import { type Eraser, eraseUser } from "../../shared/privacy/erase-user.ts";
import { requestErasure } from "../../shared/privacy/erasure-ledger.ts";
import { admitTask } from "../../shared/tasks/admit-task.ts";
import { filer, waiter } from "../batteries/plugins.ts";
import { expectRefusal } from "../batteries/refusal.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { asker, echo } from "../support/plugins.ts";
import { keepWaiting } from "../support/waiting-artifact.ts";
import { finishErasure, passTime, stateOf, wakeEraser } from "./erasing.ts";
import { newUser } from "./people.ts";
import { storeOf } from "./places.ts";

let platform: TestPlatform;
let redis: Redis;
let admin: pg.Client;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo, filer, asker, waiter] });
  redis = new Redis(platform.redis.url);
  admin = new pg.Client({ connectionString: platform.env.DATABASE_URL });
  await admin.connect();
});
afterEach(() => {
  globalThis.aauFailpoint = undefined;
});
afterAll(async () => {
  redis?.disconnect();
  await admin?.end();
  await platform?.stop();
});

interface Person {
  userId: UserId;
  key: string;
}

async function personOf(tenant: TestTenant, role?: string): Promise<Person> {
  const userId = await newUser(platform.db, tenant.tenantId, undefined, role);
  const { key } = await tenant.mintKey({ userId, scopes: ["tasks:read", "tasks:write"] });
  return { userId, key };
}

const submit = ({ key }: Person, body: object, headers: Record<string, string> = {}) =>
  platform.call("POST", "/v1/tasks", { key, body, headers: { prefer: "wait=20", ...headers } });

/** Two turns of a conversation, a file, a file that waits, a model call, a ticket. */
async function liveALittle(tenant: TestTenant, person: Person): Promise<void> {
  await submit(person, { command: "first", plugin: "echo", conversation_id: "talk" }, { "idempotency-key": "once" });
  await submit(person, { command: "second", plugin: "echo", conversation_id: "talk" });
  await submit(person, { command: "a file", plugin: "filer" });
  const waits = await submit(person, { command: "another file", plugin: "filer" });
  await keepWaiting(platform.db, parseId("task", waits.body.task_id) ?? "");
  await submit(person, { command: "What is this about?", plugin: "asker" });
  const { rows } = await admin.query<{ id: string }>("SELECT id FROM tasks WHERE tenant_id = $1 AND user_id = $2 ORDER BY id LIMIT 1", [tenant.tenantId, person.userId]);
  const number = Number((await admin.query("SELECT coalesce(max(number), 0) + 1 AS n FROM tickets WHERE tenant_id = $1", [tenant.tenantId])).rows[0]?.n);
  await admin.query(
    "INSERT INTO tickets (tenant_id, number, fingerprint, title, type, priority, source_task, source_plugin) VALUES ($1, $2, lpad($2::int::text, 64, '0'), 'a title', 'bug', 'low', $3, 'filer')",
    [tenant.tenantId, number, rows[0]?.id],
  );
  await admin.query("INSERT INTO ticket_events (tenant_id, number, type, data, task_id) VALUES ($1, $2, 'noted', '{\"text\": \"a note\"}', $3)", [
    tenant.tenantId,
    number,
    rows[0]?.id,
  ]);
}

/** What `liveALittle` leaves, by where it stands. */
const OF_A_LITTLE = {
  tasks: 5,
  task_steps: 5,
  conversations: 1,
  messages: 4,
  artifacts: 1,
  artifacts_waiting: 1,
  idempotency_keys: 1,
  llm_calls: 1,
  tickets: 1,
  ticket_events: 1,
  execution_events: 5,
  api_keys: 1,
  users: 1,
};

async function requested(tenant: TestTenant, { userId }: Person): Promise<ErasureId> {
  const made = await requestErasure(platform.db, tenant.tenantId, userId, "operator");
  if (!made || typeof made === "string") throw new Error("not requested");
  return made.id;
}

function eraser(): Eraser & { close(): void } {
  const storage = storeOf(platform);
  return { db: platform.db, redis, storage, signals: { cancelRequested: async () => {} }, telemetry: { erasureFinished() {}, erasurePutOff() {} }, close: () => storage.close() };
}

/** Lives for so many calls to the outside, then every call fails: before it takes place, or after. */
function mortal<T extends object>(target: T, life: { calls: number; diesAfter: boolean }): T {
  return new Proxy(target, {
    get(of, name) {
      const value: unknown = Reflect.get(of, name);
      if (typeof value !== "function") return value;
      // Goes nowhere outside.
      if (name === "defineCommand") return value.bind(of);
      return async (...args: unknown[]) => {
        life.calls -= 1;
        if (life.calls < 0 || (life.calls === 0 && !life.diesAfter)) throw new Error("dead");
        const result: unknown = await Reflect.apply(value, of, args);
        if (life.calls === 0) throw new Error("dead");
        return result;
      };
    },
  });
}

describe("an erasure", () => {
  it("counts in its certificate what went where, and says where nothing is left", async () => {
    const tenant = await platform.tenant();
    const person = await personOf(tenant);
    await liveALittle(tenant, person);
    const asked = await tenant.api("POST", "/v1/gdpr/erasure-request", { user_id: publicId("user", person.userId) });
    expect(asked).toMatchObject({ status: 202, body: { certificate: null, completed_at: null } });
    const id = parseId("erasure", asked.body.erasure_id) ?? newId("erasure");
    const counts = await finishErasure(platform, id);
    expect(counts).toMatchObject(OF_A_LITTLE);
    const { body } = await tenant.api("GET", `/v1/gdpr/erasure-requests/${asked.body.erasure_id}`);
    expect(body).toMatchObject({
      status: "completed",
      erased: counts,
      certificate: { searched: expect.arrayContaining(["tasks", "messages", "redis", "storage", "execution_events"]) },
    });
    expect(JSON.stringify(body)).not.toContain(person.userId);
    const { rows } = await admin.query("SELECT user_id, pseudonym FROM erasure_requests WHERE id = $1", [id]);
    expect(rows).toEqual([{ user_id: null, pseudonym: null }]);
    expect((await admin.query("SELECT 1 FROM erasure_items WHERE erasure_id = $1", [id])).rows).toEqual([]);
  });

  it("leaves what the tenant pays for, under one pseudonym that leads to nobody", async () => {
    const tenant = await platform.tenant();
    const [person, other] = [await personOf(tenant), await personOf(tenant)];
    await liveALittle(tenant, person);
    await submit(other, { command: "of another", plugin: "echo", conversation_id: "talk" });
    await finishErasure(platform, await requested(tenant, person));
    const { rows } = await admin.query<{ actor_ref: string }>("SELECT DISTINCT actor_ref FROM execution_events WHERE tenant_id = $1 ORDER BY 1", [tenant.tenantId]);
    expect(rows.map((row) => row.actor_ref).sort()).toEqual([other.userId, expect.stringMatching(/^erased_[0-9a-f]{32}$/)].sort());
    const tasks = (await tenant.api("GET", "/v1/tasks?limit=100")).body.tasks as { task_id: string }[];
    expect(tasks).toHaveLength(6);
    for (const { task_id } of tasks) expect((await tenant.api("GET", `/v1/tasks/${task_id}`)).body).toMatchObject({ status: "success", execution_meta: { attempts: 1 } });
    const kept = await admin.query("SELECT input->>'command' AS command FROM tasks WHERE tenant_id = $1 AND input IS NOT NULL", [tenant.tenantId]);
    expect(kept.rows).toEqual([{ command: "of another" }]);
    expect((await admin.query("SELECT count(*)::int AS n FROM messages WHERE tenant_id = $1", [tenant.tenantId])).rows).toEqual([{ n: 2 }]);
    expect((await submit(other, { command: "still here", plugin: "echo" })).body.status).toBe("success");
  });

  it("is one, however often it is asked for, and however many work on it at once", async () => {
    const tenant = await platform.tenant();
    const person = await personOf(tenant);
    await liveALittle(tenant, person);
    const asked = await Promise.all(Array.from({ length: 8 }, () => requested(tenant, person)));
    expect(new Set(asked).size).toBe(1);
    const [id = newId("erasure")] = asked;
    await passTime(platform.db);
    await Promise.all(Array.from({ length: 8 }, () => wakeEraser(platform, id)));
    expect(await finishErasure(platform, id)).toMatchObject(OF_A_LITTLE);
    expect(await requested(tenant, person)).toBe(id);
    expect(await wakeEraser(platform, id)).toBe(204);
    expect((await stateOf(platform.db, id))?.counts).toMatchObject(OF_A_LITTLE);
  });

  it.each([false, true])("goes on where it was after a death at any call, and counts everything once (the call took place: %s)", async (diesAfter) => {
    const tenant = await platform.tenant();
    const person = await personOf(tenant);
    await liveALittle(tenant, person);
    const id = await requested(tenant, person);
    await passTime(platform.db);
    let deaths = 0;
    for (let calls = 1; (await stateOf(platform.db, id))?.state !== "completed"; calls += 1) {
      expect(calls, "the erasure ends").toBeLessThan(400);
      const parts = eraser();
      const life = { calls, diesAfter };
      await eraseUser({ ...parts, db: mortal(parts.db, life), redis: mortal(redis, life), storage: mortal(parts.storage, life) }, id, AbortSignal.timeout(20_000)).catch(() => {
        deaths += 1;
      });
      parts.close();
      await passTime(platform.db);
    }
    expect(deaths).toBeGreaterThan(20);
    const { cache_entries: _, ...counts } = (await stateOf(platform.db, id))?.counts ?? {};
    expect(counts).toMatchObject(OF_A_LITTLE);
  }, 120_000);

  it("waits at each of its failpoints for whoever comes next", async () => {
    const tenant = await platform.tenant();
    const person = await personOf(tenant);
    await liveALittle(tenant, person);
    const id = await requested(tenant, person);
    const visited = new Set<string>();
    for (let at = 0; (await stateOf(platform.db, id))?.state !== "completed"; at++) {
      expect(at).toBeLessThan(60);
      const life = { calls: Number.POSITIVE_INFINITY, diesAfter: false };
      globalThis.aauFailpoint = async (name) => {
        if (!name.startsWith("erase.") || visited.has(name)) return;
        visited.add(name);
        life.calls = 0;
        throw new Error("dead");
      };
      const parts = eraser();
      await passTime(platform.db);
      await eraseUser({ ...parts, db: mortal(parts.db, life) }, id, AbortSignal.timeout(20_000)).catch(() => {});
      parts.close();
    }
    const tables = TASK_TABLES.map(({ name }) => name).filter((name) => name !== "artifacts");
    const stores = [
      "caches",
      ...USER_TABLES.map(({ name }) => name),
      "object",
      "artifacts",
      ...tables.flatMap((name) => (name === "ticket_events" ? ["tickets_of_others", name] : [name])),
    ];
    expect([...visited]).toEqual(["block", "cancel", ...stores, "search"].map((name) => `erase.after_${name}`));
    expect((await stateOf(platform.db, id))?.counts).toMatchObject(OF_A_LITTLE);
  });

  it("begins again when the search finds something, and certifies nothing before", async () => {
    const tenant = await platform.tenant();
    const person = await personOf(tenant);
    await liveALittle(tenant, person);
    const id = await requested(tenant, person);
    await passTime(platform.db);
    globalThis.aauFailpoint = async (name) => {
      if (name !== "erase.after_tasks") return;
      globalThis.aauFailpoint = undefined;
      await admin.query("UPDATE llm_calls SET answer = '{\"late\": true}' WHERE tenant_id = $1", [tenant.tenantId]);
    };
    expect(await wakeEraser(platform, id)).toBe(204);
    expect(await stateOf(platform.db, id)).toMatchObject({ state: "running", leftovers: 1, done: [] });
    expect(await finishErasure(platform, id)).toMatchObject({ llm_calls: 2 });
    expect((await admin.query("SELECT 1 FROM llm_calls WHERE tenant_id = $1 AND answer IS NOT NULL", [tenant.tenantId])).rows).toEqual([]);
  });

  it("takes the person's words from tickets of others, and leaves what others have said there since", async () => {
    const tenant = await platform.tenant();
    const [person, other] = [await personOf(tenant), await personOf(tenant)];
    for (const who of [person, other]) await liveALittle(tenant, who);
    const taskOf = async ({ userId }: Person) => (await admin.query("SELECT id FROM tasks WHERE tenant_id = $1 AND user_id = $2 LIMIT 1", [tenant.tenantId, userId])).rows[0].id;
    const { rows } = await admin.query("SELECT number FROM tickets WHERE tenant_id = $1 AND source_task IN (SELECT id FROM tasks WHERE user_id = $2)", [
      tenant.tenantId,
      other.userId,
    ]);
    const change = async (who: Person, said: { assignee?: string; team?: string; component?: string; labels?: string[] }) => {
      const values = [tenant.tenantId, rows[0].number, JSON.stringify(said)];
      await admin.query(
        "UPDATE tickets t SET (assignee, team, component, labels) = (SELECT n.assignee, n.team, n.component, n.labels FROM jsonb_populate_record(t, $3) n) WHERE tenant_id = $1 AND number = $2",
        values,
      );
      await admin.query("INSERT INTO ticket_events (tenant_id, number, type, data, task_id) VALUES ($1, $2, 'changed', $3, $4)", [...values, await taskOf(who)]);
    };
    await change(other, { assignee: "before", component: "before" });
    await change(person, { assignee: "mine", team: "mine", labels: ["mine"] });
    await change(other, { team: "since" });
    const ticket = async () =>
      (await admin.query("SELECT title, assignee, team, component, labels FROM tickets WHERE tenant_id = $1 AND number = $2", [tenant.tenantId, rows[0].number])).rows[0];
    const id = await requested(tenant, person);
    await passTime(platform.db);
    globalThis.aauFailpoint = async (name) => {
      if (name !== "erase.after_tasks") return;
      globalThis.aauFailpoint = undefined;
      await admin.query("UPDATE tickets SET assignee = 'mine again' WHERE tenant_id = $1 AND number = $2", [tenant.tenantId, rows[0].number]);
    };
    expect(await wakeEraser(platform, id)).toBe(204);
    expect(await stateOf(platform.db, id)).toMatchObject({ state: "running", leftovers: 1, counts: { tickets: 1, tickets_of_others: 1 } });
    expect(await finishErasure(platform, id)).toMatchObject({ tickets: 1, tickets_of_others: 2 });
    expect(await ticket()).toEqual({ title: "a title", assignee: null, team: "since", component: "before", labels: [] });
    expect((await admin.query("SELECT 1 FROM ticket_events WHERE tenant_id = $1 AND data::text LIKE '%mine%'", [tenant.tenantId])).rows).toEqual([]);
  });

  it("revokes the user's keys with the answer, ends what runs, and lets nothing begin", async () => {
    const tenant = await platform.tenant();
    const person = await personOf(tenant);
    const running = await submit(person, { command: "wait", plugin: "waiter" }, { prefer: "wait=0" });
    await vi.waitFor(async () => expect((await tenant.api("GET", `/v1/tasks/${running.body.task_id}`)).body.status).toBe("running"), { timeout: 20_000 });
    const asked = await tenant.api("POST", "/v1/gdpr/erasure-request", { user_id: publicId("user", person.userId) });
    const id = parseId("erasure", asked.body.erasure_id) ?? newId("erasure");
    expectRefusal(await submit(person, { command: "more", plugin: "echo" }), "AUTH_INVALID");
    // A request whose key was looked at before it was revoked.
    const caller = { keyId: newId("key"), tenantId: tenant.tenantId, userId: person.userId, environment: "live" as const, scopes: SCOPES, tier: "professional" as const };
    const late = admitTask(
      platform.db,
      { ...caller, limits: { perTenant: 1, perPlugin: 1 } },
      {
        id: newId("task"),
        submission: {
          command: "late",
          attachments: [],
          priority: "normal",
          plugin: "echo",
          plan: undefined,
          conversation_id: undefined,
          max_cost_usd: undefined,
          deadline: undefined,
        },
        plugin: "echo",
        plan: [{ id: "main", plugin: "echo", version: "1.0.0", needs: [] }],
        method: "explicit",
        confidence: 1,
        embedding: null,
        traceparent: `00-${"1".repeat(32)}-${"1".repeat(16)}-01`,
        requestId: "req_late",
        idempotency: null,
      },
    );
    await expect(late).rejects.toMatchObject({ code: "AUTH_INVALID" });
    await finishErasure(platform, id);
    expect((await tenant.api("GET", `/v1/tasks/${running.body.task_id}`)).body.status).toBe("cancelled");
  });

  it("waits for files that may still be on their way, and finds those that no row names", async () => {
    const tenant = await platform.tenant();
    const person = await personOf(tenant);
    const { body } = await submit(person, { command: "a file", plugin: "filer" });
    const taskId = parseId("task", body.task_id);
    const id = await requested(tenant, person);
    expect(await wakeEraser(platform, id)).toBe(204);
    expect(await stateOf(platform.db, id)).toMatchObject({ state: "running", done: ["list"] });
    // A gateway that was killed between the put and the row.
    const store = storeOf(platform);
    await store.put(`${tenant.tenantId}/filer/${taskId}/late.txt`, Buffer.from("late"), "text/plain");
    expect(await finishErasure(platform, id)).toMatchObject({ artifacts: 1, objects_without_a_row: 1 });
    expect(await store.list(`${tenant.tenantId}/`, null)).toEqual([]);
    store.close();
  });

  it("is the user's own to ask for, or a privacy admin's, with a live key, and within the tenant", async () => {
    const [tenant, foreign] = [await platform.tenant(), await platform.tenant()];
    const [person, other, owner] = [await personOf(tenant), await personOf(tenant), await personOf(tenant, "owner")];
    const test = await tenant.mintKey({ environment: "test" });
    const ask = (key: string, userId: UserId) => platform.call("POST", "/v1/gdpr/erasure-request", { key, body: { user_id: publicId("user", userId) } });
    const take = (key: string, userId: UserId) => platform.call("GET", `/v1/gdpr/export?user_id=${publicId("user", userId)}`, { key });
    for (const call of [ask, take]) {
      expectRefusal(await call(other.key, person.userId), "FORBIDDEN_SCOPE");
      expectRefusal(await call(test.key, person.userId), "FORBIDDEN_SCOPE");
      expect(expectRefusal(await call(foreign.key, person.userId), "NOT_FOUND")).toEqual(expectRefusal(await call(foreign.key, newId("user")), "NOT_FOUND"));
    }
    await platform.db.platform((tx) => tx.updateTable("users").set({ role: "admin" }).where("id", "=", tenant.userId).execute());
    expectRefusal(await ask(tenant.key, owner.userId), "FORBIDDEN_SCOPE");
    expectRefusal(await ask(owner.key, owner.userId), "CONFLICT");
    expect((await take(person.key, person.userId)).status).toBe(200);
    expect((await ask(person.key, person.userId)).status).toBe(202);
    expectRefusal(await take(person.key, person.userId), "AUTH_INVALID");
  });

  it("is done again when a backup from before comes back", async () => {
    const tenant = await platform.tenant();
    const person = await personOf(tenant);
    await liveALittle(tenant, person);
    // Those of other tests, so that nothing else moves while the backup is made.
    const open = await admin.query<{ id: string }>("SELECT id FROM erasure_requests WHERE state <> 'completed'");
    for (const { id } of open.rows) await finishErasure(platform, asId("erasure", id));
    const { rows } = await admin.query<{ name: string }>("SELECT tablename AS name FROM pg_tables WHERE schemaname = 'public'");
    const tables = rows.map(({ name }) => pg.escapeIdentifier(name));
    await admin.query(`CREATE SCHEMA backup; ${tables.map((name) => `CREATE TABLE backup.${name} AS TABLE public.${name};`).join("\n")}`);
    const first = await requested(tenant, person);
    await finishErasure(platform, first);

    await admin.query(
      `BEGIN; SET LOCAL session_replication_role = replica; TRUNCATE ${tables.join(", ")};
       ${tables.map((name) => `INSERT INTO public.${name} OVERRIDING SYSTEM VALUE SELECT * FROM backup.${name};`).join("\n")} COMMIT; DROP SCHEMA backup CASCADE;`,
    );
    expect((await admin.query("SELECT 1 FROM users WHERE id = $1", [person.userId])).rows).toHaveLength(1);
    expect((await replay(platform.env)).reopened).toBe(1);
    await platform.runCron("retention-purge");
    const again = await admin.query<{ id: string }>("SELECT id FROM erasure_requests WHERE user_id = $1 AND requested_by = 'restore'", [person.userId]);
    expect(again.rows).toHaveLength(1);
    // The object went the first time, and is not asked after.
    expect(await finishErasure(platform, asId("erasure", again.rows[0]?.id ?? ""))).toMatchObject(OF_A_LITTLE);
    expect((await admin.query("SELECT 1 FROM users WHERE id = $1", [person.userId])).rows).toEqual([]);
  });

  it("reaches a user who was removed before", async () => {
    const tenant = await platform.tenant();
    const person = await personOf(tenant);
    await liveALittle(tenant, person);
    await platform.db.platform((tx) => tx.deleteFrom("users").where("id", "=", person.userId).execute());
    const asked = await tenant.api("POST", "/v1/gdpr/erasure-request", { user_id: publicId("user", person.userId) });
    const counts = await finishErasure(platform, parseId("erasure", asked.body.erasure_id) ?? newId("erasure"));
    // The rest went with the user's row.
    expect(counts).toMatchObject({ tasks: 5, artifacts: 1, tickets: 1, execution_events: 5 });
    expect((await admin.query("SELECT 1 FROM removed_users WHERE tenant_id = $1", [tenant.tenantId])).rows).toEqual([]);
    expectRefusal(await tenant.api("GET", `/v1/gdpr/export?user_id=${publicId("user", person.userId)}`), "NOT_FOUND");
  });

  it("does not take what a key of a service account did", async () => {
    const tenant = await platform.tenant();
    const person = await personOf(tenant);
    const { key } = await tenant.mintKey({ scopes: ["tasks:write"] });
    const { body } = await submit({ userId: person.userId, key }, { command: "of a machine", plugin: "echo" });
    await finishErasure(platform, await requested(tenant, person));
    expect((await tenant.api("GET", `/v1/tasks/${body.task_id}`)).body).toMatchObject({ result: "of a machine" });
  });
});

describe("an export", () => {
  it("is one JSON document with all that a user left, and nothing of anybody else", async () => {
    const tenant = await platform.tenant();
    const [person, other] = [await personOf(tenant), await personOf(tenant)];
    await liveALittle(tenant, person);
    await submit(other, { command: "of another", plugin: "echo" });
    const { body, text, headers } = await platform.call("GET", `/v1/gdpr/export?user_id=${publicId("user", person.userId)}`, { key: person.key });
    expect(headers.get("content-disposition")).toContain(".json");
    expect(body.users).toMatchObject([{ id: person.userId, email: expect.stringContaining("@people.example") }]);
    expect(body.conversations).toMatchObject([{ name: "talk", messages: [{ content: "first" }, { content: "first" }, { content: "second" }, { content: "second" }] }]);
    expect(body.tasks).toHaveLength(5);
    expect(body.tasks[0]).toMatchObject({ input: { command: "first" }, result: { result: "first" }, tickets: [{ title: "a title" }], execution_events: [{ status: "success" }] });
    const file = body.tasks[2].artifacts[0];
    expect((await platform.call("GET", file.url, { key: person.key })).status).toBe(302);
    expect(body.tasks[4].llm_calls).toHaveLength(1);
    expect(text).not.toMatch(/of another|key_hash|lease_token|tenant_id/);
  });
});
