/** Two tenants with something of every kind, for ids and cursors that lead somewhere: without them every request would end at 404. */
import { parseId, publicId } from "../../shared/ids.ts";
import { addressOf, GUARDED, operationOf, pathOf } from "../batteries/declared.ts";
import { plantOneOfEach } from "../batteries/foreign.ts";
import type { TestPlatform, TestTenant } from "../support/platform.ts";

export interface Planted {
  /** By the prefix of the ids: the caller's own, none of which is the caller's own key or user. */
  own: Readonly<Record<string, readonly string[]>>;
  foreign: Readonly<Record<string, readonly string[]>>;
  cursors: readonly string[];
  key: string;
  /** Keys with which less is allowed, or nothing. */
  otherKeys: readonly string[];
}

export async function plant(platform: TestPlatform): Promise<Planted> {
  const [tenant, stranger] = [await platform.tenant(), await platform.tenant()];
  const [first, theirs] = [await plantOneOfEach(tenant, platform.db), await plantOneOfEach(stranger, platform.db)];
  const own: Record<string, string[]> = Object.fromEntries(Object.entries(first).map(([prefix, id]) => [prefix, [id]]));
  await plantMore(tenant, own);
  await platform.db.call("SELECT enqueue_webhook_event($1, 'quota.warning', 'one for each endpoint', '{}')", [tenant.tenantId]);
  await platform.db.call(
    `INSERT INTO artifacts (id, tenant_id, task_id, plugin_name, name, media_type, size_bytes, sha256, storage_key)
     SELECT gen_random_uuid(), tenant_id, id, 'echo', 'report.txt', 'text/plain', 1, '', 'nowhere' FROM tasks WHERE tenant_id = $1`,
    [tenant.tenantId],
  );
  const key = await tenant.api("POST", "/v1/api-keys", { scopes: ["tasks:read"] });
  await tenant.api("DELETE", `/v1/api-keys/${key.body.id}`);
  const others = [await tenant.mintKey({ scopes: ["tasks:read"] }), await tenant.mintKey({ scopes: ["knowledge:read"] }), await tenant.mintKey({ environment: "test" })];
  return {
    own,
    foreign: Object.fromEntries(Object.entries(theirs).map(([prefix, id]) => [prefix, [id]])),
    cursors: await firstCursors(tenant, own),
    key: tenant.key,
    otherKeys: [key.body.key, ...others.map((other) => other.key), stranger.key],
  };
}

/** Several of what a request can take away or change, so that the next one finds another; questions to be answered among them. */
async function plantMore(tenant: TestTenant, own: Record<string, string[]>): Promise<void> {
  const keep = (prefix: string, id: unknown) => {
    if (typeof id === "string") own[prefix] = [...(own[prefix] ?? []), id];
  };
  for (let i = 0; i < 4; i++) {
    keep("task", (await tenant.api("POST", "/v1/tasks", { command: `number ${i}`, plugin: "echo" })).body.task_id);
    keep("task", (await tenant.api("POST", "/v1/tasks", { command: `say number ${i}` })).body.task_id);
    keep("usr", (await tenant.api("POST", "/v1/users", { email: `somebody-${i}@example.com`, role: "viewer" })).body.id);
    keep("key", (await tenant.api("POST", "/v1/api-keys", { scopes: ["tasks:read"] })).body.id);
    keep("doc", (await tenant.api("POST", "/v1/knowledge", { content: `Passage number ${i}.` })).body.document_id);
    keep("whk", (await tenant.api("POST", "/v1/webhooks", { url: `https://hooks.aau.io/${i}`, events: ["quota.warning"] })).body.webhook_id);
  }
}

async function firstCursors(tenant: TestTenant, own: Record<string, string[]>): Promise<string[]> {
  const cursors: string[] = [];
  for (const fn of GUARDED.filter((candidate) => operationOf(candidate).parameters?.some(({ name }) => name === "cursor"))) {
    const path = pathOf(fn, (prefix) => own[prefix]?.[0] ?? "");
    const { body } = await tenant.api(addressOf(fn).method, `${path}?limit=1`);
    if (typeof body?.next_cursor === "string") cursors.push(body.next_cursor);
  }
  return cursors;
}

/** What a good id looks like in another spelling, and what only looks like one. */
export function spoil(id: string): string[] {
  const [prefix = ""] = id.split("_");
  const bare = parseId("task", id.replace(/^[a-z]+/, "task"));
  return [
    id.toUpperCase(),
    `${id}0`,
    id.slice(0, -1),
    `${prefix}_`,
    prefix,
    bare ?? "",
    `x${id}`,
    id.replace("_", "-"),
    bare ? publicId("call", bare) : "",
    `${prefix}_${"z".repeat(26)}`,
  ];
}
