/**
 * How long a refusal takes: of each operation with an id in its path, requests for something of another tenant and for something that was never there,
 * in turns, over real HTTP. Whoever could tell the two apart by the clock would learn which ids exist.
 */
import { Client } from "undici";
import { median } from "../bench/figures.ts";
import { startTestPlatform } from "../support/platform.ts";
import { echo } from "../support/plugins.ts";
import { addressOf, GUARDED, idPrefixesOf, pathOf, randomIdLike, sampleBody } from "./declared.ts";
import { plantOneOfEach } from "./foreign.ts";

export interface ForeignTimes {
  operation: string;
  /** Medians, in milliseconds. */
  foreignMs: number;
  randomMs: number;
}

const WARM_UP = 50;
const LIMITS = { per_tenant: 100_000_000, per_plugin: 100_000_000 };

/** `samples` requests of each of the two kinds for each operation. */
export async function compareForeignTimes(postgresUrl: string, samples: number, say: (times: ForeignTimes) => void): Promise<ForeignTimes[]> {
  const platform = await startTestPlatform({ plugins: [echo], withBridge: false, postgresUrl });
  const client = new Client(platform.publicUrl, { pipelining: 1 });
  try {
    const [own, foreign] = [await platform.tenant({ settings: { rate_limits: LIMITS } }), await platform.tenant()];
    const ids = await plantOneOfEach(foreign, platform.db);
    const all: ForeignTimes[] = [];
    for (const fn of GUARDED.filter((one) => idPrefixesOf(one).length > 0)) {
      const { method } = addressOf(fn);
      const body = fn.body ? JSON.stringify(sampleBody(fn)) : undefined;
      const headers = { authorization: `Bearer ${own.key}`, ...(body === undefined ? {} : { "content-type": "application/json" }) };
      const ask = async (idOf: (prefix: string) => string): Promise<number> => {
        const path = pathOf(fn, idOf);
        const startedAt = performance.now();
        const answer = await client.request({ method: method as "GET", path, headers, body });
        await answer.body.dump();
        if (answer.statusCode !== 404) throw new Error(`${method} ${path} was answered with ${answer.statusCode} instead of 404`);
        return performance.now() - startedAt;
      };
      const times: { foreign: number[]; random: number[] } = { foreign: [], random: [] };
      for (let i = -WARM_UP; i < samples; i++) {
        // What comes second finds everything warm: each is the second half of the time.
        for (const kind of i % 2 === 0 ? (["foreign", "random"] as const) : (["random", "foreign"] as const)) {
          const ms = await ask(kind === "foreign" ? (prefix) => ids[prefix] ?? randomIdLike(prefix) : randomIdLike);
          if (i >= 0) times[kind].push(ms);
        }
      }
      const found = { operation: fn.name, foreignMs: median(times.foreign), randomMs: median(times.random) };
      all.push(found);
      say(found);
    }
    return all;
  } finally {
    await client.close();
    await platform.stop();
  }
}
