/** What goes wrong at the model, the embedding service, the object store and in the plugin's own process. */

import type { EmbeddingFault } from "../outside.ts";
import type { Deserved } from "../records.ts";
import type { StoreFault } from "../store-door.ts";
import { delay, during, type Scenario, type ScenarioTools } from "./scenario.ts";

const GOOD: Deserved = { status: ["success"] };

/** What each fault of the provider deserves, when it happens so many times. */
const PROVIDER_FAULTS: readonly [directive: string, deserves: Deserved][] = [
  ["429 2", GOOD],
  ["500 2", GOOD],
  ["529 2", GOOD],
  ["529 4", GOOD],
  ["reset 1", GOOD],
  ["overloaded 2", GOOD],
  ["end 1", GOOD],
  ["truncated 1", GOOD],
  ["max-tokens 1", GOOD],
  ["empty 1", GOOD],
  ["no-usage 1", GOOD],
  ["over-usage 1", GOOD],
  ["refusal 1", { status: ["failed"], code: ["CONTENT_POLICY_VIOLATION"] }],
  ["400 1", { status: ["failed"] }],
];

const UPLOAD_PATIENCE_MS = 60_000;

/** The auditor compares rows with objects, and says which are missing. */
async function untilUploaded({ platform }: ScenarioTools): Promise<void> {
  const end = performance.now() + UPLOAD_PATIENCE_MS;
  for (;;) {
    const { rows } = await platform.look.query<{ open: string }>("SELECT count(*) AS open FROM artifact_uploads");
    if (rows[0]?.open === "0" || performance.now() > end) return;
    await delay(200);
  }
}

export const PROVIDER_SCENARIOS: readonly Scenario[] = [
  {
    id: "F-22",
    title: "the provider refuses, breaks off, truncates, counts nothing, or counts too much",
    isShort: true,
    weight: 3,
    run: (tools, count) =>
      during(
        tools,
        tools.send(Math.max(count, PROVIDER_FAULTS.length), (i) => {
          const [directive = "", deserves = GOOD] = PROVIDER_FAULTS[i % PROVIDER_FAULTS.length] ?? [];
          return { directives: `[provider ${directive}]`, deserves };
        }),
        async () => {},
      ),
  },
  {
    id: "F-23",
    title: "the embedding service fails, is slow, and answers in the wrong width",
    isShort: true,
    run: async (tools, count) => {
      const { embeddings } = tools.platform;
      const kinds: readonly (EmbeddingFault | null)[] = [null, "error", "narrow", "slow"];
      for (const kind of kinds) {
        embeddings.fault(kind);
        // A decision that was cached in better times needs no embedding.
        await tools.platform.redis.flush();
        const method = kind === null ? ["embedding", "cache"] : ["keyword"];
        await during(
          tools,
          tools.send(Math.ceil(count / kinds.length), () => ({ plugin: null, deserves: { status: ["success"], method } })),
          async () => {},
        );
      }
      embeddings.fault(null);
    },
  },
  {
    id: "F-24",
    title: "the object store is away, slow, too busy, and closed",
    isShort: true,
    run: async (tools, count) => {
      const kinds: readonly StoreFault[] = ["away", "busy", "forbidden", "slow"];
      for (const kind of kinds) {
        tools.platform.store.fault(kind);
        await during(
          tools,
          tools.send(Math.ceil(count / kinds.length), () => ({ deserves: { status: ["success"], warning: "ARTIFACT_DELAYED" } })),
          async () => {},
        );
      }
      tools.platform.store.fault(null);
      // Their next tries are minutes off; what is looked at is that the next one brings every file where its row says.
      await tools.platform.look.query("UPDATE artifact_uploads SET next_attempt_at = now()");
      await untilUploaded(tools);
    },
  },
  {
    id: "F-26",
    title: "a task that ends the plugin's process whenever it gets there, among good ones",
    run: async (tools, count) => {
      await during(
        tools,
        tools.send(count, (i) => (i % 8 === 0 ? { directives: "[exit]", deserves: { status: ["failed"], code: ["PLUGIN_UNAVAILABLE"], cause: ["plugin", "platform"] } } : {})),
        async () => {},
      );
      // The bad ones end last: three in a row open the circuit. This one waits that out, and finds the plugin well again without anybody's help.
      await tools.send(1);
    },
  },
];
