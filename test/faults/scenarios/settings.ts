/** Settings that are wrong: said when the process starts, or a clear error; never a guess. */
import { join } from "node:path";
import { startRedis } from "../../../scripts/local/redis.ts";
import { randomHex } from "../../../shared/ids.ts";
import { runOnce } from "../once.ts";
import { ask } from "../redis-server.ts";
import { untilTold } from "../told.ts";
import { delay, type Scenario } from "./scenario.ts";

const ENDS_WITHIN_MS = 15_000;

export const SETTING_SCENARIOS: readonly Scenario[] = [
  {
    id: "F-05",
    title: "Redis is set up to throw away whatever is oldest",
    weight: 0,
    async run(tools) {
      const { platform } = tools;
      const redis = await startRedis(join(platform.sources.logFolder, "redis-lru"), { persist: false });
      try {
        for (const policy of ["allkeys-lru", "allkeys-random"]) {
          await ask(redis.url, (client) => client.config("SET", "maxmemory-policy", policy));
          const { code, said } = await runOnce(platform.bundleOf("bridge"), { ...platform.env, REDIS_URL: redis.url, PORT: "0" }, ENDS_WITHIN_MS).ended;
          tools.sure(`the bridge ends with code ${code} on ${policy}, and says why`, code !== null && code !== 0 && said.includes(`maxmemory-policy ${policy}`));
        }
        await ask(redis.url, (client) => client.config("SET", "maxmemory-policy", "volatile-ttl"));
        const bridge = await platform.spare("bridge-volatile", "bridge", { REDIS_URL: redis.url });
        await bridge.start();
        tools.sure("on volatile-ttl it runs", bridge.isUp);
        await bridge.stop();
        tools.say("F-05 the bridge refuses allkeys-lru and allkeys-random, and runs on volatile-ttl");
      } finally {
        await redis.stop();
      }
    },
  },
  {
    id: "F-37",
    title: "the key for secrets is missing, short, doubled, or another one; the provider's key is empty",
    weight: 0,
    async run(tools) {
      const { platform } = tools;
      const word = `tooshort${randomHex().slice(0, 8)}`;
      const wrong: readonly [string, Record<string, string>, string][] = [
        ["is missing", { SECRETS_KEY: "" }, "SECRETS_KEY"],
        ["is short", { SECRETS_KEY: word }, "SECRETS_KEY"],
        ["has the id of another", { SECRETS_OTHER_KEYS: `k1=${randomHex()}` }, "k1"],
        ["has an id that is none", { SECRETS_KEY_ID: "K 1" }, "SECRETS_KEY_ID"],
      ];
      for (const [what, env, names] of wrong) {
        const { code, said } = await runOnce(platform.bundleOf("webhook-deliver"), { ...platform.env, ...env, PORT: "0" }, ENDS_WITHIN_MS).ended;
        tools.sure(`a sender whose key ${what} ends with code ${code} and names ${names}`, code === 1 && said.includes(names));
        tools.sure(`a sender whose key ${what} repeats no value`, !said.includes(word) && !Object.values(env).some((value) => value.length > 10 && said.includes(value)));
      }

      // Secrets that were sealed under another key: nothing is sent, nothing is opened, and with the right key everything is told.
      const sender = platform.processes["webhook-deliver"];
      await untilTold(tools);
      await sender.arm("", { SECRETS_KEY_ID: "k9", SECRETS_KEY: randomHex() });
      const before = platform.receivers.heard.length;
      await tools.send(4);
      await delay(3_000);
      tools.sure(`${platform.receivers.heard.length - before} requests from a sender that cannot open a secret`, platform.receivers.heard.length === before, "I9");
      await sender.arm("", { SECRETS_KEY: randomHex() });
      await tools.send(2);
      await delay(2_000);
      tools.sure(`${platform.receivers.heard.length - before} requests from a sender with another key under the same id`, platform.receivers.heard.length === before, "I9");
      await sender.arm("");
      tools.sure("with the right key everything is told", await untilTold(tools), "I9");

      const gateway = await platform.spare("llm-gateway-empty", "llm-gateway", { ANTHROPIC_API_KEY: "", ANTHROPIC_BASE_URL: "" });
      await gateway.start();
      tools.sure("a gateway whose provider's key is empty answers offline", gateway.isUp);
      await gateway.stop();
      tools.say(`F-37 ${wrong.length} wrong settings refused at start; 6 events kept by senders that could not open the secret, and told by one that could`);
    },
  },
];
