/** (routing) From a command to a decision over 10,000 capability sentences, without the time of an embedding provider. */

import { EMBEDDING_DIMENSIONS, type Embedder, toUnitVector } from "../../shared/models/embedder.ts";
import { offlineEmbedder } from "../../shared/models/embeddings-offline/offline-embedder.ts";
import { OPENAI_MODEL } from "../../shared/models/embeddings-openai.ts";
import type { Catalogue, CatalogueEntry } from "../../shared/registry/catalogue.ts";
import { scoreTexts } from "../../shared/routing/score-texts.ts";
import { readCatalogue, readCommands } from "../corpus/corpus.ts";
import { millis, quantile, table, whole } from "./figures.ts";
import type { Part } from "./part.ts";

const PLUGINS = 2_000;
const SENTENCES = 5;
const COMMANDS = 1_000;
const WARM_UP = 50;
/** SPEC: the routing step may take this long. */
const ALLOWED_MS = 200;

/** Sentences of the corpus, each with the end of another one: as many different ones as are asked for, in everyday words. */
async function sentences(count: number): Promise<string[]> {
  const known = [...(await readCatalogue()), ...(await readCatalogue("crowd.json"))].flatMap(({ capabilities }) => capabilities.map((text) => text.split(" ")));
  return Array.from({ length: count }, (_, i) => {
    const [head, tail] = [known[i % known.length] ?? [], known[(i * 7 + Math.floor(i / known.length)) % known.length] ?? []];
    return [...head.slice(0, Math.ceil(head.length / 2)), ...tail.slice(Math.floor(tail.length / 2))].join(" ");
  });
}

/** A direction for each text, every dimension of it in use; the same text gives the same. What a provider's model costs here is what comes after it. */
function denseEmbedder(): Embedder {
  const vectorOf = (text: string) => {
    let state = 2166136261;
    for (const letter of text) state = Math.imul(state ^ letter.charCodeAt(0), 16777619) >>> 0;
    return toUnitVector(
      Float32Array.from({ length: EMBEDDING_DIMENSIONS }, () => {
        state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
        return state / 2 ** 31 - 1;
      }),
    );
  };
  const made = new Map<string, Float32Array>();
  return {
    model: OPENAI_MODEL,
    async embed(texts) {
      return texts.map((text) => {
        const vector = made.get(text) ?? vectorOf(text);
        made.set(text, vector);
        return vector;
      });
    },
  };
}

/** Routing reads names and vectors; the rest of an entry is not touched. */
async function catalogueOf(embedder: Embedder): Promise<Catalogue> {
  const texts = await sentences(PLUGINS * SENTENCES);
  const vectors = await embedder.embed(texts);
  const plugins = Array.from({ length: PLUGINS }, (_, i) => {
    const [from, to] = [i * SENTENCES, (i + 1) * SENTENCES];
    return { name: `plugin-${i}`, manifest: { capabilities: texts.slice(from, to) }, vectors: new Map([[embedder.model, vectors.slice(from, to)]]) } as unknown as CatalogueEntry;
  });
  return { generation: "1", plugins: new Map(plugins.map((entry) => [entry.name, entry])) };
}

/** Sorted, by the clock on the wall and by the processor's: on a machine that does other things besides, only the second says what routing costs. */
interface Times {
  wall: number[];
  cpu: number[];
}

async function timesOf(embedder: Embedder, visible: ReadonlySet<string> | null): Promise<Times> {
  const catalogue = await catalogueOf(embedder);
  const scorer = { catalogue, embedder, thresholds: {}, visible, telemetry: { degraded: (_: string, error: unknown) => Promise.reject(error) } };
  const corpus = await readCommands();
  const commands = Array.from({ length: WARM_UP + COMMANDS }, (_, i) => corpus[i % corpus.length]?.text ?? "");
  if (embedder.model === OPENAI_MODEL) await embedder.embed(commands);
  const times: Times = { wall: [], cpu: [] };
  for (const [i, command] of commands.entries()) {
    const [startedAt, used] = [performance.now(), process.cpuUsage()];
    await scoreTexts(scorer, [command]);
    const { user, system } = process.cpuUsage(used);
    if (i < WARM_UP) continue;
    times.wall.push(performance.now() - startedAt);
    times.cpu.push((user + system) / 1000);
  }
  for (const list of [times.wall, times.cpu]) list.sort((a, b) => a - b);
  return times;
}

export const routing: Part = {
  letter: "routing",
  title: `One command against ${whole(PLUGINS * SENTENCES)} capability sentences of ${whole(PLUGINS)} plugins, one at a time, ${whole(COMMANDS)} commands`,

  async run(_stage, print) {
    const half = new Set(Array.from({ length: PLUGINS / 2 }, (_, i) => `plugin-${i * 2}`));
    const measured: [string, Times][] = [
      ["offline model, its own embedding included", await timesOf(offlineEmbedder(), null)],
      ["the same, half of the plugins visible", await timesOf(offlineEmbedder(), half)],
      ["dense vectors, without the provider", await timesOf(denseEmbedder(), null)],
    ];
    const rows = measured.map(([what, { wall, cpu }]) => [what, ...[wall, cpu].flatMap((list) => [0.5, 0.99].map((q) => millis(quantile(list, q))))]);
    print(table(["embedding path", "p50", "p99", "CPU p50", "CPU p99"], rows));
    return measured.filter(([, { cpu }]) => quantile(cpu, 0.99) >= ALLOWED_MS).map(([what]) => `${what}: p99 is more than ${ALLOWED_MS} ms of the processor's time`);
  },
};
