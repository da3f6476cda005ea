import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { freePort } from "../../scripts/local/child.ts";
import { type LocalRedis, startRedis } from "../../scripts/local/redis.ts";
import { askCircuit, lookAtCircuits, type Permit, tellCircuit, tripCircuit, type Verdict } from "../../shared/execution/circuit-breaker.ts";
import { connectRedis } from "../../shared/redis/connect.ts";
import { circuitOf, passTime } from "../support/circuits.ts";

let folder: string;
let server: LocalRedis;
let redis: Redis;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "aau-circuit-"));
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
/** A circuit of its own, as an executor uses it. */
function circuit(connection = redis) {
  const of = { plugin: `plugin-${++count}`, version: "1.0.0" };
  const ask = () => askCircuit(connection, of, 30_000);
  return {
    ask,
    tell: (permit: Permit, verdict: Verdict) => (permit.mayCall ? tellCircuit(connection, of, permit, verdict) : Promise.reject(new Error("no permit"))),
    async run(verdict: Verdict) {
      const permit = await ask();
      return permit.mayCall ? tellCircuit(connection, of, permit, verdict) : permit.state;
    },
    trip: () => tripCircuit(connection, of),
    look: async () => (await lookAtCircuits(connection, [of]))?.[0],
    state: () => circuitOf(server.url, of.plugin),
    pass: (field: "until" | "probe_until") => passTime(server.url, of.plugin, field),
    async open() {
      for (let i = 0; i < 3; i++) await this.run("failure");
    },
  };
}

describe("a circuit", () => {
  it("opens after three failures in a row, and says how long it will be", async () => {
    const { run, ask, look } = circuit();
    expect([await run("failure"), await run("failure"), await run("failure")]).toEqual(["closed", "closed", "open"]);
    const permit = await ask();
    expect(permit).toMatchObject({ mayCall: false, state: "open" });
    expect(permit.mayCall === false && permit.retryAfterMs > 50_000 && permit.retryAfterMs <= 60_000).toBe(true);
    expect(await look()).toBe("open");
  });

  it("counts only failures in a row", async () => {
    const { run } = circuit();
    for (const verdict of ["failure", "failure", "success", "failure", "failure"] as const) expect(await run(verdict)).toBe("closed");
  });

  it("neither counts nor resets what a caller did wrong", async () => {
    const first = circuit();
    for (let i = 0; i < 10; i++) expect(await first.run("neutral")).toBe("closed");
    const second = circuit();
    for (const verdict of ["failure", "neutral", "failure", "neutral"] as const) await second.run(verdict);
    expect(await second.run("failure")).toBe("open");
  });

  it("opens once when many fail at the same moment", async () => {
    const { ask, tell, state } = circuit();
    const permits = await Promise.all(Array.from({ length: 20 }, ask));
    const told = await Promise.all(permits.map((permit) => tell(permit, "failure")));
    expect(told.filter((one) => one === "closed")).toHaveLength(2);
    expect(Object.keys(await state()).sort()).toEqual(["state", "until"]);
  });

  it("lets one caller probe when its time is over, whoever asks at the same moment", async () => {
    const one = circuit();
    await one.open();
    await one.pass("until");
    expect(await one.look()).toBe("half_open");
    const permits = await Promise.all(Array.from({ length: 20 }, one.ask));
    expect(permits.filter(({ mayCall }) => mayCall)).toHaveLength(1);
    expect(permits.filter(({ mayCall }) => !mayCall).every((permit) => !permit.mayCall && permit.retryAfterMs <= 10_000)).toBe(true);
  });

  it.each([
    ["success", "closed"],
    ["failure", "open"],
  ] as const)("becomes what the probe found: %s, %s", async (verdict, state) => {
    const one = circuit();
    await one.open();
    await one.pass("until");
    expect(await one.run(verdict)).toBe(state);
    expect((await one.ask()).state).toBe(state);
  });

  it("hears only its probe: a call that began before it opened neither closes nor prolongs it", async () => {
    const one = circuit();
    const early = await one.ask();
    await one.open();
    expect(await one.tell(early, "success")).toBe("open");
    await one.pass("until");
    const probe = await one.ask();
    expect(await one.tell(early, "success")).toBe("half_open");
    expect(await one.tell(early, "failure")).toBe("half_open");
    expect(await one.tell(probe, "success")).toBe("closed");
  });

  it("gives the probe to somebody else when the prober dies, and does not hear it afterwards", async () => {
    const one = circuit();
    await one.open();
    await one.pass("until");
    const dead = await one.ask();
    expect((await one.ask()).mayCall).toBe(false);
    await one.pass("probe_until");
    const second = await one.ask();
    expect(second.mayCall).toBe(true);
    expect(await one.tell(dead, "success")).toBe("half_open");
    expect(await one.tell(second, "success")).toBe("closed");
  });

  it("gives the probe to somebody else at once when it ended without a word on the plugin", async () => {
    const one = circuit();
    await one.open();
    await one.pass("until");
    expect(await one.run("neutral")).toBe("half_open");
    expect(await one.ask()).toMatchObject({ mayCall: true, state: "half_open" });
  });

  it("is opened by a plugin that says it is not well, but not in the middle of a probe", async () => {
    const one = circuit();
    expect(await one.trip()).toBe("open");
    await one.pass("until");
    const probe = await one.ask();
    expect(await one.trip()).toBe("half_open");
    expect(await one.tell(probe, "success")).toBe("closed");
  });

  it("outlives its cooldown and its probe in Redis", async () => {
    const one = circuit();
    await one.run("failure");
    expect(await redis.pttl(`circuit:plugin-${count}:1.0.0`)).toBeGreaterThan(600_000);
    await one.run("failure");
    await one.run("failure");
    await one.pass("until");
    await one.ask();
    expect(await redis.pttl(`circuit:plugin-${count}:1.0.0`)).toBeGreaterThan(600_000);
  });

  it("counts as closed without Redis", async () => {
    const away = connectRedis(`redis://127.0.0.1:${await freePort()}`);
    const { run, trip, look, ask } = circuit(away);
    for (let i = 0; i < 5; i++) expect(await run("failure")).toBe("closed");
    expect(await ask()).toEqual({ mayCall: true, state: "closed", probe: "" });
    expect([await trip(), await look()]).toEqual(["closed", undefined]);
    away.disconnect();
  });
});
