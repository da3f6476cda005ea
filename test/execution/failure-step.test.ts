import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type LocalRedis, startRedis } from "../../scripts/local/redis.ts";
import { PluginFailure } from "../../shared/execution/plugin-client.ts";
import { turnKey } from "../../shared/execution/suspects.ts";
import { newId } from "../../shared/ids.ts";
import { connectRedis } from "../../shared/redis/connect.ts";
import { circuitOf } from "../support/circuits.ts";
import { failed, outputOf, type Play, type RunSettings, runScripted } from "./step-rig.ts";

let folder: string;
let server: LocalRedis;
let redis: Redis;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "aau-step-"));
  server = await startRedis(folder, { persist: false });
  redis = connectRedis(server.url);
  await new Promise((resolve) => redis.once("ready", resolve));
});
afterAll(async () => {
  redis?.disconnect();
  await server?.stop();
  await rm(folder, { recursive: true, force: true });
});

let count = 0;
/** Each run has a plugin, and so a circuit, of its own. */
async function run(play: Play, settings: RunSettings = {}) {
  const name = `scripted-${++count}`;
  const done = await runScripted(redis, play, { ...settings, manifest: { name, ...settings.manifest } });
  return { ...done, circuit: await circuitOf(server.url, name) };
}
const throws = (failure: PluginFailure) => () => {
  throw failure;
};
const unreached = (more: { retryAfterMs?: number } = {}) =>
  new PluginFailure("PLUGIN_UNAVAILABLE", "The plugin cannot be reached.", "plugin", true, { isUnreached: true, ...more });
const died = () => new PluginFailure("PLUGIN_UNAVAILABLE", "The plugin's process ended.", "plugin", true);

describe("a step whose plugin answers", () => {
  it("is its answer, and says nothing of the envelope when it is the current one", async () => {
    const { ending, circuit } = await run((call) => outputOf(call));
    expect(ending).toMatchObject({ kind: "output", output: { result: "done", warnings: [], deprecation_warning: null } });
    expect(circuit).toEqual({});
  });

  it("tells the caller when the plugin speaks an older envelope", async () => {
    const { ending } = await run((call) => outputOf(call), { manifest: { envelope_version: "1.0" } });
    expect(ending).toMatchObject({ output: { deprecation_warning: expect.stringMatching(/^scripted-\d+ 1\.0\.0 speaks envelope 1\.0; the platform speaks 2\.0/) } });
  });
});

describe("a step whose plugin's process dies", () => {
  it("is tried again as often as the manifest says, and then fails as the plugin's fault", async () => {
    const { ending, calls, circuit, reports } = await run(throws(died()), { manifest: { max_retries: 2 } });
    expect(calls).toHaveLength(3);
    expect(reports.map(({ type }) => type)).toEqual(["retrying", "retrying"]);
    expect(ending).toEqual({ kind: "failed", output: null, error: { code: "PLUGIN_UNAVAILABLE", message: "The plugin's process ended.", cause: "plugin" } });
    // One execution, however often it was tried.
    expect(circuit).toEqual({ failures: "1" });
  });

  it("is the second try's answer", async () => {
    const { ending, circuit } = await run((call, n) => (n === 1 ? throws(died())() : outputOf(call)));
    expect(ending.kind).toBe("output");
    expect(circuit).toEqual({});
  });
});

describe("steps that were cut off together", () => {
  const cutOff = () => new PluginFailure("PLUGIN_UNAVAILABLE", "The plugin's process ended.", "plugin", true, { isCutOff: true });

  /** A process that holds all its executions, and ends with the one that ends it. */
  function fragileProcess() {
    const held = new Set<() => void>();
    let most = 0;
    return {
      mostAgain: () => most,
      play:
        (ends: boolean): Play =>
        async (call, count) => {
          let die = () => {};
          const end = new Promise<never>((_, reject) => {
            die = () => reject(cutOff());
          });
          end.catch(() => {});
          held.add(die);
          if (count > 1) most = Math.max(most, held.size);
          try {
            await Promise.race([end, delay(40)]);
            if (ends) for (const other of [...held]) other();
            await Promise.race([end, delay(20)]);
            return outputOf(call);
          } finally {
            held.delete(die);
          }
        },
    };
  }

  it("go on one at a time, so that the one that ends the process ends only itself", async () => {
    const process = fragileProcess();
    const name = `fragile-${++count}`;
    const step = (ends: boolean) => runScripted(redis, process.play(ends), { manifest: { name, max_retries: 3 }, deadlineMs: 60_000 });
    const [bad, ...good] = await Promise.all([true, false, false, false, false, false].map(step));
    expect(good.map(({ ending }) => ending.kind)).toEqual(Array(5).fill("output"));
    expect(bad?.ending).toMatchObject({ kind: "failed", error: { code: "PLUGIN_UNAVAILABLE", cause: "plugin" } });
    expect([bad?.calls.length, process.mostAgain()]).toEqual([4, 1]);
    expect(await redis.exists(turnKey({ plugin: name, version: "1.0.0" }))).toBe(0);
  });

  it("are known in their next attempt", async () => {
    const name = `fragile-${++count}`;
    const taskId = newId("task");
    await runScripted(redis, throws(cutOff()), { manifest: { name, max_retries: 0 }, taskId });
    await redis.set(turnKey({ plugin: name, version: "1.0.0" }), "another suspect", "PX", 600);
    const { atMs } = await runScripted(redis, (call) => outputOf(call), { manifest: { name }, taskId, attempt: 2 });
    expect(atMs[0]).toBeGreaterThanOrEqual(550);
  });

  it("lose none of their tries to a process that is still starting", async () => {
    const plays: readonly Play[] = [throws(cutOff()), throws(unreached())];
    const { ending, calls } = await runScripted(redis, (call, n) => plays[n - 1]?.(call, n) ?? outputOf(call), { manifest: { name: `fragile-${++count}`, max_retries: 1 } });
    expect([ending.kind, calls.length]).toEqual(["output", 3]);
  });

  it("wait no longer than a turn may last for one who does not give it back", async () => {
    const name = `fragile-${++count}`;
    await redis.set(turnKey({ plugin: name, version: "1.0.0" }), "somebody who died", "PX", 900);
    const { ending, atMs } = await runScripted(redis, (call, n) => (n === 1 ? throws(cutOff())() : outputOf(call)), { manifest: { name } });
    expect(ending.kind).toBe("output");
    expect(atMs[1]).toBeGreaterThanOrEqual(850);
  });
});

describe("a step that meets an outage", () => {
  it.each<[string, Play]>([
    ["the plugin cannot be reached", throws(unreached())],
    ["the model's provider is away", (call) => failed(call, "PLUGIN_UNAVAILABLE", "upstream")],
    ["a part of the platform is away", (call) => failed(call, "PLUGIN_UNAVAILABLE", "platform")],
  ])("waits in the queue when %s, however often that was before", async (_, play) => {
    const { ending, circuit } = await run(play, { manifest: { max_retries: 0 }, handBacks: 50, deadlineMs: 3_600_000 });
    expect(ending).toMatchObject({ kind: "hand_back", reason: "PLUGIN_UNAVAILABLE" });
    expect(ending.kind === "hand_back" && ending.delayMs >= 1_000 && ending.delayMs <= 61_000).toBe(true);
    expect(circuit).toEqual({ failures: "1" });
  });

  it("waits in the queue also when a service that the caller chose is away, which no circuit counts", async () => {
    const { ending, calls, circuit } = await run((call) => failed(call, "PLUGIN_UNAVAILABLE", "caller"), { manifest: { max_retries: 1 }, deadlineMs: 3_600_000 });
    expect(calls).toHaveLength(2);
    expect(ending).toMatchObject({ kind: "hand_back", reason: "PLUGIN_UNAVAILABLE" });
    expect(circuit).toEqual({});
  });

  it("fails with a hint when the deadline leaves no time to wait", async () => {
    const { ending } = await run((call) => failed(call, "PLUGIN_UNAVAILABLE", "upstream", { retry_after_seconds: 120 }), { deadlineMs: 30_000 });
    expect(ending).toMatchObject({
      kind: "failed",
      error: { code: "PLUGIN_UNAVAILABLE", cause: "upstream", retry_after_seconds: expect.any(Number) },
      output: { status: "failed" },
    });
    expect(ending.kind === "failed" && (ending.error.retry_after_seconds ?? 0) >= 120).toBe(true);
  });
});

describe("Retry-After", () => {
  it("is waited for here when it is short", async () => {
    const { ending, atMs } = await run((call, n) => (n === 1 ? failed(call, "PLUGIN_UNAVAILABLE", "upstream", { retry_after_seconds: 0.7 }) : outputOf(call)));
    expect(ending.kind).toBe("output");
    expect(atMs[1]).toBeGreaterThanOrEqual(700);
  });

  it("is waited for in the queue when it is long, without another try", async () => {
    const { ending, calls } = await run((call) => failed(call, "PLUGIN_UNAVAILABLE", "upstream", { retry_after_seconds: 90 }), { deadlineMs: 3_600_000 });
    expect(calls).toHaveLength(1);
    expect(ending.kind === "hand_back" && ending.delayMs >= 90_000 && ending.delayMs <= 91_000).toBe(true);
  });

  it("is not believed beyond five minutes", async () => {
    const { ending } = await run((call) => failed(call, "PLUGIN_UNAVAILABLE", "upstream", { retry_after_seconds: 1e9 }), { deadlineMs: 3_600_000 });
    expect(ending.kind === "hand_back" && ending.delayMs >= 300_000 && ending.delayMs <= 301_000).toBe(true);
  });

  it("of a plugin that refuses in good order says nothing against it", async () => {
    const { ending, circuit } = await run(throws(unreached({ retryAfterMs: 60_000 })), { deadlineMs: 3_600_000 });
    expect(ending.kind === "hand_back" && ending.delayMs >= 60_000).toBe(true);
    expect(circuit).toEqual({});
  });
});

describe("a step that fails for good", () => {
  it.each([
    ["INVALID_INPUT", "caller", {}],
    ["CONTENT_POLICY_VIOLATION", "caller", {}],
    ["TOKEN_BUDGET_EXCEEDED", "caller", {}],
    ["CONTEXT_WINDOW_OVERFLOW", "caller", {}],
    ["PLUGIN_TIMEOUT", "caller", {}],
    ["INTERNAL", "plugin", { failures: "1" }],
  ] as const)("with %s is not tried again; the circuit counts it only when %s is the plugin", async (code, cause, circuit) => {
    const done = await run((call) => failed(call, code, cause, { artifacts: [], warnings: [{ code: "KEPT", message: "what was done is kept" }] }));
    expect(done.calls).toHaveLength(1);
    expect(done.ending).toMatchObject({ kind: "failed", error: { code, cause, message: `it said ${code}` }, output: { warnings: [{ code: "KEPT" }] } });
    expect(done.circuit).toEqual(circuit);
  });
});

describe("a step that runs out of time", () => {
  it("is the plugin's fault when it had the time of its manifest, and is tried again", async () => {
    const never: Play = () => new Promise(() => {});
    const { ending, calls, circuit } = await run(never, { manifest: { timeout_seconds: 1, max_retries: 1 } });
    expect(calls).toHaveLength(2);
    expect(ending).toMatchObject({ kind: "failed", error: { code: "PLUGIN_TIMEOUT", cause: "plugin" } });
    expect(circuit).toEqual({ failures: "1" });
  }, 15_000);

  it("is tried again also when the plugin says so itself", async () => {
    const { ending, calls } = await run((call, n) => (n === 1 ? failed(call, "PLUGIN_TIMEOUT", "plugin") : outputOf(call)));
    expect([ending.kind, calls.length]).toEqual(["output", 2]);
  });

  it("is the caller's when the deadline left less, and is not", async () => {
    const { ending, calls, circuit } = await run(() => new Promise(() => {}), { manifest: { timeout_seconds: 100 }, deadlineMs: 500 });
    expect(calls).toHaveLength(1);
    expect(ending).toMatchObject({ kind: "failed", error: { code: "PLUGIN_TIMEOUT", cause: "caller" } });
    expect(circuit).toEqual({});
  }, 15_000);
});

describe("an input that does not fit into the model's context", () => {
  const turns = Array.from({ length: 5 }, (_, at) => ({ role: "user" as const, content: `turn ${at}` }));
  const knowledge = [{ content: "a passage", source_url: null, similarity: 0.9 }];
  const overflowing: Play = (call, n) => (n === 1 ? failed(call, "CONTEXT_WINDOW_OVERFLOW", "caller") : outputOf(call));

  it("is tried once more without the oldest history, and says so", async () => {
    const { ending, calls, kept } = await run(overflowing, { context: { conversation_history: turns, org_knowledge_chunks: knowledge }, manifest: { max_retries: 0 } });
    expect(kept).toBe(1);
    expect(calls[1]?.context.conversation_history.map(({ content }) => content)).toEqual(["turn 3", "turn 4"]);
    expect(calls[1]?.context.org_knowledge_chunks).toEqual(knowledge);
    expect(ending).toMatchObject({ kind: "output", output: { warnings: [{ code: "CONTEXT_WINDOW_OVERFLOW", message: expect.stringContaining("the oldest 3 of 5 turns") }] } });
  });

  it("is left out from the start in a later attempt, which asks what this one asked", async () => {
    const { ending, calls } = await run((call) => outputOf(call), { isShortened: true, context: { conversation_history: turns, org_knowledge_chunks: knowledge } });
    expect(calls.map(({ context }) => context.conversation_history.map(({ content }) => content))).toEqual([["turn 3", "turn 4"]]);
    expect(ending).toMatchObject({ kind: "output", output: { warnings: [{ code: "CONTEXT_WINDOW_OVERFLOW" }] } });
    const again = await run((call) => failed(call, "CONTEXT_WINDOW_OVERFLOW", "caller"), { isShortened: true, context: { conversation_history: turns } });
    expect([again.calls.length, again.kept]).toEqual([1, 0]);
  });

  it("is tried once more without the knowledge when there is no history", async () => {
    const { ending, calls } = await run(overflowing, { context: { org_knowledge_chunks: knowledge } });
    expect(calls[1]?.context.org_knowledge_chunks).toEqual([]);
    expect(ending).toMatchObject({ kind: "output", output: { warnings: [{ code: "CONTEXT_WINDOW_OVERFLOW" }] } });
  });

  it("fails when that does not help, or when there is nothing to leave out", async () => {
    const always: Play = (call) => failed(call, "CONTEXT_WINDOW_OVERFLOW", "caller");
    const helpless = await run(always, { context: { conversation_history: turns } });
    const bare = await run(always);
    expect([helpless.calls.length, bare.calls.length]).toEqual([2, 1]);
    for (const { ending } of [helpless, bare]) expect(ending).toMatchObject({ kind: "failed", error: { code: "CONTEXT_WINDOW_OVERFLOW", cause: "caller" } });
  });
});

describe("a plugin that has to stop", () => {
  it("hands the task back, which says nothing against it", async () => {
    const { ending, calls, circuit } = await run(() => ({ type: "stopped" }));
    expect(calls).toHaveLength(1);
    expect(ending).toMatchObject({ kind: "hand_back", reason: "plugin stops" });
    expect(circuit).toEqual({});
  });

  it("counts it against the plugin when that happens to a task again and again", async () => {
    const { ending, circuit } = await run(() => ({ type: "stopped" }), { handBacks: 20, deadlineMs: 3_600_000, manifest: { max_retries: 0 } });
    expect(ending).toMatchObject({ kind: "hand_back", reason: "PLUGIN_UNAVAILABLE" });
    expect(circuit).toEqual({ failures: "1" });
  });

  it("is told when this instance's time ends, and the task is not begun anew after that", async () => {
    const told: (number | null)[] = [];
    const { ending } = await run(
      (call) => {
        told.push(call.stopInMs);
        throw died();
      },
      { stopAfterMs: performance.now() - 1 },
    );
    expect(ending).toMatchObject({ kind: "hand_back", reason: "instance stops" });
    expect(told).toEqual([0]);
  });
});

describe("an open circuit", () => {
  it("sends the task to the queue without a call, says that it waits, and lets one probe through later", async () => {
    const name = `scripted-${++count}`;
    const once = (play: Play, settings: RunSettings = {}) =>
      runScripted(redis, play, { ...settings, manifest: { name, max_retries: 2 }, deadlineMs: settings.deadlineMs ?? 3_600_000 });
    for (let i = 0; i < 3; i++) await once((call) => failed(call, "INTERNAL", "plugin"));
    const waiting = await once((call) => outputOf(call));
    expect(waiting.calls).toEqual([]);
    expect(waiting.ending).toMatchObject({ kind: "hand_back", reason: "CIRCUIT_OPEN" });
    expect(waiting.ending.kind === "hand_back" && waiting.ending.delayMs > 50_000 && waiting.ending.delayMs < 64_000).toBe(true);
    expect(waiting.reports).toMatchObject([{ type: "waiting", data: { code: "PLUGIN_UNAVAILABLE", retry_after_seconds: expect.any(Number) } }]);

    const hurried = await once((call) => outputOf(call), { deadlineMs: 5_000 });
    expect(hurried.ending).toMatchObject({ kind: "failed", error: { code: "PLUGIN_UNAVAILABLE", cause: "plugin", retry_after_seconds: expect.any(Number) } });

    await redis.hset(`circuit:${name}:1.0.0`, "until", 1);
    // A probe is one call, and its failure sends the task back instead of ending it.
    const probe = await once(throws(died()));
    expect(probe.calls).toHaveLength(1);
    expect(probe.ending.kind).toBe("hand_back");
    await redis.hset(`circuit:${name}:1.0.0`, "until", 1);
    expect((await once((call) => outputOf(call))).ending.kind).toBe("output");
    expect((await once((call) => outputOf(call))).calls).toHaveLength(1);
  });
});
