/** Ids of another tenant wherever the document says that an id may stand: no answer tells them from ids of nothing, and nothing of that tenant changes. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";
import { addressOf, byName, GUARDED, idPrefixesOf, pathOf, randomIdLike, sampleBody } from "./declared.ts";
import { idsBesidePath, plantOneOfEach, rowsOf } from "./foreign.ts";
import { expectRefusal } from "./refusal.ts";

let platform: TestPlatform;
let own: TestTenant;
let foreign: TestTenant;
let ownIds: Record<string, string>;
let foreignIds: Record<string, string>;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [echo], withBridge: false });
  [own, foreign] = [await platform.tenant(), await platform.tenant()];
  [ownIds, foreignIds] = [await plantOneOfEach(own, platform.db), await plantOneOfEach(foreign, platform.db)];
});
afterAll(() => platform?.stop());

const foreignRows = () => rowsOf(platform.env.DATABASE_URL ?? "", foreign);
/** What an answer says, without what differs between any two. */
const said = ({ status, body }: { status: number; body: { error?: { code: string; message: string } } | null }) => ({
  status,
  code: body?.error?.code,
  message: body?.error?.message,
});

const BESIDE = GUARDED.filter((fn) => idsBesidePath(fn).length > 0);

describe.each(byName(BESIDE))("%s", (_, fn) => {
  const { method } = addressOf(fn);
  it.each(idsBesidePath(fn).map((where) => [where.place, where.name, where.prefix] as const))("takes no other tenant's id in its %s, as %s", async (place, name, prefix) => {
    const [theirs, mine] = [foreignIds[prefix], ownIds[prefix]];
    expect(theirs && mine, `plantOneOfEach makes no ${prefix}`).toBeTruthy();
    const ask = (id: string) => {
      const path = pathOf(fn, (kind) => ownIds[kind] ?? randomIdLike(kind));
      return own.api(method, place === "query" ? `${path}?${name}=${id}` : path, fn.body ? { ...sampleBody(fn), ...(place === "body" && { [name]: id }) } : undefined);
    };
    const before = await foreignRows();
    const [ofForeign, ofNothing] = [await ask(theirs ?? ""), await ask(randomIdLike(prefix))];
    if (place === "body") expectRefusal(ofForeign, "NOT_FOUND");
    expect(said(ofForeign)).toEqual(said(ofNothing));
    expect(ofForeign.text).not.toContain(theirs);
    expect(await foreignRows()).toEqual(before);
  });
});

describe.each(byName(GUARDED.filter((fn) => idPrefixesOf(fn).length > 0)))("%s", (_, fn) => {
  it("changes no row of the tenant whose id it is given", async () => {
    const before = await foreignRows();
    const answer = await own.api(
      addressOf(fn).method,
      pathOf(fn, (prefix) => foreignIds[prefix] ?? ""),
      fn.body ? sampleBody(fn) : undefined,
    );
    expectRefusal(answer, "NOT_FOUND");
    expect(await foreignRows()).toEqual(before);
  });

  it("takes an id of another kind for an id of nothing", async () => {
    for (const [kind, id] of Object.entries(ownIds)) {
      if (idPrefixesOf(fn).includes(kind)) continue;
      expectRefusal(
        await own.api(
          addressOf(fn).method,
          pathOf(fn, () => id),
          fn.body ? sampleBody(fn) : undefined,
        ),
        "NOT_FOUND",
        kind,
      );
    }
  });
});

it("a conversation belongs to one tenant, whoever else uses its name", async () => {
  const talk = (tenant: TestTenant) => tenant.api("POST", "/v1/tasks", { command: "talk", plugin: "echo", conversation_id: "shared-name" });
  await talk(foreign);
  const before = await foreignRows();
  expect((await talk(own)).status).toBe(202);
  expect(await foreignRows()).toEqual(before);
});

it("there are ids beside paths to hold to this", () => {
  expect(BESIDE.map(({ name }) => name)).toContain("api-key-create");
});
