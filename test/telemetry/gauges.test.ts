import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { tripCircuit } from "../../shared/execution/circuit-breaker.ts";
import { exportGauges } from "../../shared/host/bridge/gauges.ts";
import { openMetrics } from "../../shared/telemetry/metrics.ts";
import { startTestPlatform, type TestPlatform } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";

const STREAM = "stream:tasks:echo";

describe("the bridge's gauges", () => {
  let platform: TestPlatform;
  let redis: Redis;
  const metrics = openMetrics();
  const value = async (name: string, labels = "") => {
    const text = await metrics.registry.getSingleMetricAsString(name);
    const line = text.split("\n").find((one) => one.startsWith(`${name}${labels} `));
    return line === undefined ? undefined : Number(line.split(" ").at(-1));
  };

  beforeAll(async () => {
    platform = await startTestPlatform({ plugins: [echo], withBridge: false });
    redis = new Redis(platform.redis.url, { maxRetriesPerRequest: 1 }).on("error", () => {});
    const consumer = { stream: STREAM, inFlight: 3, stop: async () => {} };
    exportGauges({
      redis,
      db: platform.db,
      metrics,
      consumers: new Map([
        [STREAM, consumer],
        ["stream:knowledge", { ...consumer, stream: "stream:knowledge" }],
      ]),
    });
    const tenant = await platform.tenant();
    for (const word of ["one", "two"]) expect((await tenant.api("POST", "/v1/tasks", { command: word, plugin: "echo" })).status).toBe(202);
  });
  afterAll(async () => {
    redis.disconnect();
    await platform.stop();
  });

  it("tell the rings that nobody has done, those that wait for another try included", async () => {
    expect(await value("aau_task_stream_depth", '{plugin="echo"}')).toBe(2);
    await redis.zadd(`retry:${STREAM}`, Date.now() + 60_000, "{}");
    expect(await value("aau_task_stream_depth", '{plugin="echo"}')).toBe(3);
    expect(await value("aau_stream_depth", '{stream="stream:knowledge"}')).toBe(0);
    expect(await value("aau_bridge_in_flight", `{stream="${STREAM}"}`)).toBe(3);
  });

  it("tell what a bridge has taken and not acknowledged, and how old the oldest entry is", async () => {
    expect(await value("aau_stream_pending", `{stream="${STREAM}"}`)).toBeUndefined();
    await redis.xgroup("CREATE", STREAM, "bridge", "0");
    await redis.xreadgroup("GROUP", "bridge", "one", "COUNT", 1, "STREAMS", STREAM, ">");
    expect(await value("aau_stream_pending", `{stream="${STREAM}"}`)).toBe(1);
    expect(await value("aau_stream_oldest_entry_seconds", `{stream="${STREAM}"}`)).toBeGreaterThan(0);
  });

  it("tell the circuits of all routable versions, also while no executor runs", async () => {
    expect(await value("aau_circuit_breaker_state", '{plugin="echo",version="1.0.0"}')).toBe(0);
    await tripCircuit(redis, { plugin: "echo", version: "1.0.0" });
    expect(await value("aau_circuit_breaker_state", '{plugin="echo",version="1.0.0"}')).toBe(2);
  });

  it("tell the tasks that are open as PostgreSQL knows them, which is right also when Redis is away", async () => {
    await platform.redis.stop();
    expect(await value("aau_open_tasks", '{plugin="echo",status="queued"}')).toBe(2);
    expect(await value("aau_oldest_queued_task_seconds", '{plugin="echo"}')).toBeGreaterThan(0);
    expect(await value("aau_task_stream_depth", '{plugin="echo"}')).toBeUndefined();
  });
});
