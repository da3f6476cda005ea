/** Redis restarted, emptied, full, silent, and cut in the middle of an answer: slower, and nothing lost. */
import { taskStream } from "../../../shared/redis/streams.ts";
import plugin from "../plugin.ts";
import { ask } from "../redis-server.ts";
import { delay, during, type Scenario } from "./scenario.ts";

const STREAM = taskStream(plugin.name);

export const REDIS_SCENARIOS: readonly Scenario[] = [
  {
    id: "F-01",
    title: "Redis is killed and comes back with what its append-only file has",
    run: (tools, count) => during(tools, tools.send(count), () => tools.platform.redis.crash(500, { keeps: true })),
  },
  {
    id: "F-02",
    title: "Redis comes back empty, and is emptied while it runs",
    isShort: true,
    run: (tools, count) =>
      during(tools, tools.send(count), async () => {
        await tools.platform.redis.crash(300);
        await delay(1_000);
        await tools.platform.redis.flush();
      }),
  },
  {
    id: "F-03",
    title: "the stream, and then only its group, is gone",
    run: (tools, count) =>
      during(tools, tools.send(count), async () => {
        const { url } = tools.platform.redis;
        await ask(url, (redis) => redis.del(STREAM));
        await delay(700);
        await ask(url, (redis) => redis.xgroup("DESTROY", STREAM, "bridge")).catch(() => {});
      }),
  },
  {
    id: "F-04",
    title: "Redis is full and refuses every write",
    run: (tools, count) =>
      during(tools, tools.send(count), async () => {
        const { url } = tools.platform.redis;
        await ask(url, (redis) => redis.config("SET", "maxmemory", "1"));
        await delay(3_000);
        await ask(url, (redis) => redis.config("SET", "maxmemory", "0"));
      }),
  },
  {
    id: "F-06",
    title: "Redis is a black hole, and then slow",
    isShort: true,
    run: (tools, count) =>
      during(tools, tools.send(count), async () => {
        tools.platform.redisWire.stall();
        await delay(4_000);
        tools.platform.redisWire.heal();
        tools.platform.redisWire.slow(150);
        await delay(2_000);
        tools.platform.redisWire.heal();
      }),
  },
  {
    id: "F-07",
    title: "the answer to a ring is lost, and the connection with it",
    run: (tools, count) =>
      during(tools, tools.send(count), async () => {
        for (let i = 0; i < 3; i++) await Promise.race([tools.platform.redisWire.loseAnswerTo("xadd"), delay(2_000)]);
        tools.platform.redisWire.heal();
      }),
  },
];
