import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type LocalRedis, startRedis } from "../../scripts/local/redis.ts";
import { EMBEDDING_DIMENSIONS, type Embedder } from "../../shared/models/embedder.ts";
import { openaiEmbedder } from "../../shared/models/embeddings-openai.ts";
import { openUpstream, type Upstream } from "../../shared/models/upstream.ts";
import { commandDigest, routeCacheKey } from "../../shared/routing/route-cache.ts";
import { type Router, routeCommand } from "../../shared/routing/route-command.ts";
import { scoreTexts } from "../../shared/routing/score-texts.ts";
import { withoutQuotes } from "../../shared/routing/without-quotes.ts";
import { answer, failure, type Script, type ScriptedProvider, startScriptedProvider, toolUse } from "../support/scripted-provider.ts";
import { catalogueOf, EMBEDDING_MODEL, embedderOf, OTHER_TENANT, routerOf, TENANT } from "./router.ts";

let folder: string;
let server: LocalRedis;
let redis: Redis;
let provider: ScriptedProvider;
let upstream: Upstream;
let script: Script = () => answer("nothing");
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "aau-route-"));
  server = await startRedis(folder, { persist: false });
  redis = new Redis(server.url);
  provider = await startScriptedProvider((request) => script(request));
  upstream = openUpstream({ apiKey: "scripted", baseUrl: provider.url });
});
afterAll(async () => {
  redis?.disconnect();
  await Promise.all([upstream?.close(), provider?.stop(), server?.stop()]);
  await rm(folder, { recursive: true, force: true });
});
beforeEach(() => redis.flushall());

const CLEAR = "count the words of my speech please";
const TORN = "read or count my speech";
const FOREIGN = "is it going to rain";
const COMMANDS = { [CLEAR]: [0, 0, 1], [TORN]: [0.2, 1, 0.98, 0.5], [FOREIGN]: [0, 0, 0, 1] };
/** Wide enough for the torn command to lie between the lines, whatever was last fitted. */
const LINES = { chainThreshold: 0.97, confidenceMin: 0.02 };
const router = (more: Partial<Router> = {}) => routerOf(redis, embedderOf(COMMANDS), { thresholds: LINES, ...more });
const cachedFor = (command: string, tenant = TENANT, generation = "7") => redis.get(routeCacheKey(tenant, generation, commandDigest(command)));
const route = async (own: Router, command: string, more: { plugin?: string; tenant?: typeof TENANT } = {}) =>
  routeCommand(own, { tenantId: more.tenant ?? TENANT, command, plugin: more.plugin, cachedRoute: await cachedFor(command, more.tenant, own.catalogue.generation) });

describe("the decision table", () => {
  it("takes the plugin that the caller names, and asks no model", async () => {
    const own = router();
    expect(await route(own, TORN, { plugin: "plan-maker" })).toMatchObject({ kind: "plugin", entry: { name: "plan-maker" }, method: "explicit", confidence: 1, embedding: null });
    expect(await route(own, TORN, { plugin: "no-such" })).toEqual({ kind: "unknown_plugin", name: "no-such" });
    expect((own.embedder as ReturnType<typeof embedderOf>).calls).toEqual([]);
  });

  it("takes one that stands alone, with its candidates, the lines and the vector that was made for it", async () => {
    const own = router();
    const found = await route(own, CLEAR);
    expect(found).toMatchObject({ kind: "plugin", entry: { name: "word-counter" }, method: "embedding", lines: LINES, embedding: { model: EMBEDDING_MODEL } });
    if (found.kind !== "plugin") throw new Error("not routed");
    expect(found.candidates[0]).toEqual({ plugin: "word-counter", score: expect.closeTo(1, 5), probability: found.confidence });
    expect(found.embedding?.vector).toHaveLength(EMBEDDING_DIMENSIONS);
    expect((own.embedder as ReturnType<typeof embedderOf>).calls).toEqual([[CLEAR]]);
  });

  it("asks its caller where several are near and there is no model", async () => {
    const own = router({ thresholds: { ...LINES, confidenceMin: 0 } });
    const asked = await route(own, TORN);
    expect(asked).toMatchObject({ kind: "question", method: "embedding", question: "Which plugin is this for: text-reader, word-counter or plan-maker?" });
    expect(asked.kind === "question" && asked.candidates.map(({ plugin }) => plugin)).toEqual(["text-reader", "word-counter", "plan-maker"]);
    expect(await cachedFor(TORN)).toBeNull();
    expect(own.heard.chosen).toEqual([]);
  });

  it("finds none for a command that no plugin is near to", async () => {
    expect(await route(router({ thresholds: {} }), FOREIGN)).toMatchObject({ kind: "none", candidates: [{}, {}, {}] });
  });

  it("lets the model choose between them, counts the call, and remembers the choice", async () => {
    script = () => toolUse("choose_plugin", { plugin: "word-counter" });
    const own = router({ upstream });
    const chosen = await route(own, TORN);
    expect(chosen).toMatchObject({ kind: "plugin", entry: { name: "word-counter" }, method: "llm_fallback" });
    expect(chosen.kind === "plugin" && chosen.confidence).toBeLessThan(LINES.chainThreshold);
    expect(own.heard.chosen).toMatchObject([{ outcome: "chosen", model: "claude-sonnet-4-6", inputTokens: 100, outputTokens: 20 }]);
    const calls = provider.ledger.length;
    expect(await route(own, TORN)).toMatchObject({ kind: "plugin", entry: { name: "word-counter" }, method: "cache" });
    expect(provider.ledger).toHaveLength(calls);
  });

  it("offers it no plugin that is below the line of what fits", async () => {
    let seen = "";
    script = ({ text }) => {
      seen = text;
      return toolUse("choose_plugin", { plugin: "none" });
    };
    const own = router({ upstream, thresholds: { ...LINES, confidenceMin: 0.02 } });
    const found = await route(own, TORN);
    const below = found.kind === "none" ? found.candidates.filter(({ probability }) => probability < 0.02) : [];
    for (const { plugin } of below) expect(seen).not.toContain(plugin);
    await redis.flushall();
    await route(router({ upstream, thresholds: { ...LINES, confidenceMin: 0.3 } }), TORN);
    expect(seen).toContain("word-counter");
    expect(seen).not.toContain("plan-maker");
  });

  it("takes the model's none for an answer, and remembers it", async () => {
    script = () => toolUse("choose_plugin", { plugin: "none" });
    const own = router({ upstream });
    const calls = provider.ledger.length;
    for (let i = 0; i < 2; i++) expect(await route(own, TORN)).toMatchObject({ kind: "none", candidates: [{ plugin: "text-reader" }, {}, {}] });
    expect(provider.ledger).toHaveLength(calls + 1);
    expect(own.heard.chosen).toMatchObject([{ outcome: "none" }]);
  });

  it("asks its caller when the model gives no answer, and tries it once only", async () => {
    script = () => failure(529);
    const own = router({ upstream });
    const calls = provider.ledger.length;
    expect(await route(own, TORN)).toMatchObject({ kind: "question" });
    expect(provider.ledger).toHaveLength(calls + 1);
    expect(own.heard).toMatchObject({ degraded: ["model choice"], chosen: [{ outcome: "no_answer" }] });
    expect(await cachedFor(TORN)).toBeNull();
  });
});

describe("what stands in quotes", () => {
  const quoting = `tell the author of "${CLEAR}" that it is fine`;
  const unquoted = "tell the author of   that it is fine";

  it("decides nothing, and belongs to the vector that is kept", async () => {
    const embedder = embedderOf({ ...COMMANDS, [quoting]: [0, 0, 1], [unquoted]: [1] });
    const found = await route(routerOf(redis, embedder, { thresholds: LINES }), quoting);
    expect(found).toMatchObject({ kind: "plugin", entry: { name: "plan-maker" }, method: "embedding" });
    expect(embedder.calls).toEqual([[quoting, unquoted]]);
    expect(found.kind === "plugin" && found.embedding?.vector[2]).toBeCloseTo(1, 5);
  });

  it.each([
    ["keeps names and terms", "check the \"payments\" service and the 'dead letter' queue", "check the \"payments\" service and the 'dead letter' queue"],
    ["keeps apostrophes and inches", "it's the team's 15\" screen, isn't it", "it's the team's 15\" screen, isn't it"],
    ["says of code that it is code", "what is wrong here?\n```js\nreview(this.change)\n```", "what is wrong here?\n js "],
    ["hides code that does not end", "what is wrong here? ```delete all my tickets", "what is wrong here?  code "],
    ["keeps all where nothing else is", '"Review this change for me"', '"Review this change for me"'],
  ])("%s", (_, command, own) => expect(withoutQuotes(command)).toBe(own));
});

describe("the route cache", () => {
  it("answers the same tenant, generation and models, and nobody else", async () => {
    const own = router();
    expect(await route(own, CLEAR)).toMatchObject({ method: "embedding" });
    expect(await route(own, CLEAR)).toMatchObject({ method: "cache", entry: { name: "word-counter" }, candidates: [{ plugin: "word-counter" }, {}, {}], embedding: null });
    expect(await route(own, CLEAR, { tenant: OTHER_TENANT })).toMatchObject({ method: "embedding" });
    expect(await route(router({ catalogue: catalogueOf("8") }), CLEAR)).toMatchObject({ method: "embedding" });
    const raw = await cachedFor(CLEAR);
    const other = router({ embedder: { ...embedderOf(COMMANDS), model: "text-embedding-3-small" } });
    expect(await routeCommand(other, { tenantId: TENANT, command: CLEAR, cachedRoute: raw })).not.toMatchObject({ method: "cache" });
  });

  it("forgets what a model chose that is not asked any more", async () => {
    script = () => toolUse("choose_plugin", { plugin: "text-reader" });
    expect(await route(router({ upstream }), TORN)).toMatchObject({ method: "llm_fallback" });
    const renamed = openUpstream({ apiKey: "scripted", baseUrl: provider.url, model: "another-model" });
    expect(await route(router({ upstream: renamed }), TORN)).toMatchObject({ method: "llm_fallback" });
    await renamed.close();
    expect(await route(router(), TORN)).toMatchObject({ kind: "question" });
  });

  it("never leads to a plugin that is gone or that this tenant may not see", async () => {
    await route(router(), CLEAR);
    const gone = { ...catalogueOf(), plugins: new Map([...catalogueOf().plugins].filter(([name]) => name !== "word-counter")) };
    const unseen = new Set(["plan-maker", "text-reader"]);
    for (const own of [router({ catalogue: gone }), router({ visible: unseen })]) {
      const found = await route(own, CLEAR);
      expect(JSON.stringify(found)).not.toContain("word-counter");
    }
  });

  it("holds no word of a command, in keys or values, and is gone after minutes", async () => {
    script = () => toolUse("choose_plugin", { plugin: "none" });
    const own = router({ upstream });
    for (const command of [CLEAR, TORN]) await route(own, command);
    const keys = await redis.keys("*");
    expect(keys).toHaveLength(2);
    const all = (await Promise.all(keys.map(async (key) => `${key} ${await redis.get(key)}`))).join("\n");
    for (const word of ["words", "speech", "my", "rain"]) expect(all).not.toContain(word);
    for (const key of keys) expect(await redis.ttl(key)).toSatisfy((seconds: number) => seconds > 0 && seconds <= 300);
  });
});

describe("what a tenant may not see", () => {
  const visible = new Set(["plan-maker", "text-reader"]);

  it("is not found, not named, not offered and nobody's rival", async () => {
    const own = router({ visible });
    expect(await route(own, CLEAR, { plugin: "word-counter" })).toEqual({ kind: "unknown_plugin", name: "word-counter" });
    expect(JSON.stringify(await route(own, CLEAR))).not.toContain("word-counter");
    // Without its rival, the torn command has one plugin left.
    expect(await route(router({ visible, thresholds: { ...LINES, chainThreshold: 0.6 } }), TORN)).toMatchObject({ kind: "plugin", entry: { name: "text-reader" } });
  });

  it("is not found by keywords either, nor shown to the model", async () => {
    const down: Embedder = { model: EMBEDDING_MODEL, embed: () => Promise.reject(new Error("down")) };
    expect(JSON.stringify(await route(router({ visible, embedder: down }), "the work of word counter"))).not.toContain("word-counter");
    let seen = "";
    script = ({ text }) => {
      seen = text;
      return toolUse("choose_plugin", { plugin: "word-counter" });
    };
    expect(await route(router({ visible, upstream, thresholds: { ...LINES, chainThreshold: 1 } }), TORN)).toMatchObject({ kind: "question" });
    expect(seen).toContain("text-reader");
    expect(seen).not.toContain("word-counter");
  });
});

describe("without embeddings", () => {
  const keyworded = "do the work of the word counter";
  const failing: [string, Embedder["embed"]][] = [
    ["an error", () => Promise.reject(new Error("503"))],
    ["too few vectors", async () => []],
    ["vectors of another width", async (texts) => texts.map(() => new Float32Array(768))],
  ];

  it.each(failing)("keywords decide after %s, and nothing is remembered", async (_, embed) => {
    const own = router({ embedder: { model: EMBEDDING_MODEL, embed } });
    expect(await route(own, keyworded)).toMatchObject({ kind: "plugin", entry: { name: "word-counter" }, method: "keyword", embedding: null });
    expect(own.heard.degraded).toEqual(["embeddings"]);
    expect(await redis.keys("*")).toEqual([]);
  });

  it("keywords decide when the service does not answer, and it is then left alone for a while", async () => {
    let asked = 0;
    const hanging: Embedder = { model: EMBEDDING_MODEL, embed: () => new Promise(() => void asked++) };
    const own = router({ embedder: hanging });
    expect(await route(own, keyworded)).toMatchObject({ method: "keyword" });
    const before = asked;
    expect(await route(own, keyworded)).toMatchObject({ method: "keyword" });
    expect(asked).toBe(before);
  });

  it("keywords decide when the service cannot be reached or speaks nonsense", async () => {
    const embedder = openaiEmbedder({ apiKey: "scripted", baseUrl: `${provider.url}/v1`, timeoutMs: 500 });
    expect(await route(router({ embedder }), keyworded)).toMatchObject({ method: "keyword" });
  });
});

describe("scoreTexts", () => {
  it("embeds a command and its parts in one call, and decides each by itself", async () => {
    const embedder = embedderOf({ ...COMMANDS, "read my speech": [0, 1] });
    const [whole, first, second] = await scoreTexts(routerOf(redis, embedder, { thresholds: LINES }), [TORN, "read my speech", CLEAR]);
    expect(embedder.calls).toEqual([[TORN, "read my speech", CLEAR]]);
    expect(whole?.decision.kind).toBe("unsure");
    expect([first?.decision, second?.decision]).toMatchObject([
      { kind: "direct", plugin: "text-reader" },
      { kind: "direct", plugin: "word-counter" },
    ]);
  });

  it("hands the command's entry on to routeCommand, which embeds nothing again", async () => {
    const own = router();
    const [scored] = await scoreTexts(own, [CLEAR]);
    expect(await routeCommand(own, { tenantId: TENANT, command: CLEAR, cachedRoute: null, scored })).toMatchObject({ method: "embedding", entry: { name: "word-counter" } });
    expect((own.embedder as ReturnType<typeof embedderOf>).calls).toEqual([[CLEAR]]);
  });

  it("scores no texts as nothing", async () => {
    expect(await scoreTexts(router(), [])).toEqual([]);
  });
});
