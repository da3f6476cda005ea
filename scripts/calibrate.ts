/**
 * npm run calibrate: fits the routing thresholds of each available embedding model on the fit half of test/corpus and shows what they do on
 * commands they never saw. `--write` updates shared/routing/thresholds.ts, `--check` fails when that file is out of date.
 * text-embedding-3-small takes part when OPENAI_API_KEY is set.
 */
import { readFile, writeFile } from "node:fs/promises";
import type { Embedder } from "../shared/models/embedder.ts";
import { offlineEmbedder } from "../shared/models/embeddings-offline/offline-embedder.ts";
import { openaiEmbedder } from "../shared/models/embeddings-openai.ts";
import type { RoutingThresholds } from "../shared/routing/decide.ts";
import { THRESHOLDS } from "../shared/routing/thresholds.ts";
import { withoutQuotes } from "../shared/routing/without-quotes.ts";
import { readCatalogue, readCommands, splitInHalves } from "../test/corpus/corpus.ts";
import { fitRouting } from "./calibrate-fit.ts";
import { calibrateKnowledge } from "./calibrate-knowledge.ts";
import { confusionTable, outcomeHeader, outcomeLine, tradeOff } from "./calibrate-report.ts";
import { embedCatalogue, samplesOf, trialsOf } from "./calibrate-trials.ts";

const FILE = new URL("../shared/routing/thresholds.ts", import.meta.url);

const catalogue = await readCatalogue();
const crowd = await readCatalogue("crowd.json");
const known = splitInHalves(await readCommands());
/** Written after the offline model was frozen: its thesaurus owes these commands nothing, so they keep the probabilities honest. */
const blind = splitInHalves(await readCommands("blind-commands.tsv"));
const fit = [...known.fit, ...blind.fit];
const names = catalogue.map(({ plugin }) => plugin);

const table: Record<string, RoutingThresholds> = { ...THRESHOLDS };
if (!process.argv.includes("knowledge")) {
  for (const embedder of embedders()) table[embedder.model] = await calibrate(embedder);
  for (const [model, { measured }] of Object.entries(table)) if (!measured) console.log(`${model}: estimated, never measured. Run this with its key.\n`);
  await settle(render(table));
}
await calibrateKnowledge();

function embedders(): Embedder[] {
  const { OPENAI_API_KEY: apiKey, OPENAI_BASE_URL: baseUrl } = process.env;
  return apiKey ? [offlineEmbedder(), openaiEmbedder({ apiKey, baseUrl })] : [offlineEmbedder()];
}

async function calibrate(embedder: Embedder): Promise<RoutingThresholds> {
  const embedded = await embedCatalogue(embedder, catalogue);
  const crowded = await embedCatalogue(embedder, [...catalogue, ...crowd]);
  const [fitVectors, testVectors, blindVectors] = [await embedAll(embedder, fit), await embedAll(embedder, known.test), await embedAll(embedder, blind.test)];
  const thresholds: RoutingThresholds = { ...fitRouting(samplesOf(fit, fitVectors, embedded)), measured: true };

  console.log(`\n${embedder.model}: CHAIN_THRESHOLD ${thresholds.chainThreshold}, CONFIDENCE_MIN ${thresholds.confidenceMin}, fitted on ${fit.length} commands\n`);
  console.log(outcomeHeader());
  const whole = trialsOf(known.test, testVectors, embedded);
  console.log(outcomeLine(`test half, ${names.length} plugins`, whole, thresholds));
  console.log(outcomeLine(`blind half, ${names.length} plugins`, trialsOf(blind.test, blindVectors, embedded), thresholds));
  for (const size of [3, 2, 1]) {
    const parts = combinations(names, size).flatMap((part) => trialsOf(known.test, testVectors, embedded, part));
    console.log(outcomeLine(`test half, all parts of ${size}`, parts, thresholds));
  }
  const ours = known.test.map((command, i) => ({ command, vector: testVectors[i] ?? new Float32Array() })).filter(({ command }) => command.plugin !== null);
  const inCrowd = trialsOf(
    ours.map(({ command }) => command),
    ours.map(({ vector }) => vector),
    crowded,
  );
  console.log(outcomeLine(`test half, ${crowded.plugins.length} plugins`, inCrowd, thresholds));
  console.log(`\n${confusionTable(whole, names, thresholds)}\n\n${tradeOff(whole, thresholds)}\n`);
  return thresholds;
}

function embedAll(embedder: Embedder, commands: readonly { text: string }[]): Promise<Float32Array[]> {
  return embedder.embed(commands.map(({ text }) => withoutQuotes(text)));
}

function combinations(from: readonly string[], size: number): string[][] {
  if (size === 0) return [[]];
  return from.flatMap((name, i) => combinations(from.slice(i + 1), size - 1).map((rest) => [name, ...rest]));
}

function render(rows: Record<string, RoutingThresholds>): string {
  const lines = Object.entries(rows).map(([model, { chainThreshold, confidenceMin, weights, measured }]) => {
    const w = `{ bias: ${weights.bias}, strength: ${weights.strength}, margin: ${weights.margin}, background: ${weights.background} }`;
    const fields = [`measured: ${measured}`, `chainThreshold: ${chainThreshold}`, `confidenceMin: ${confidenceMin}`, `weights: ${w}`];
    return `  "${model}": {\n${fields.map((field) => `    ${field},\n`).join("")}  },`;
  });
  return `/** Written by \`npm run calibrate -- --write\` from the fit half of test/corpus; do not edit by hand. */
import type { RoutingThresholds } from "./decide.ts";

export const THRESHOLDS: Readonly<Record<string, RoutingThresholds>> = {
${lines.join("\n")}
};
`;
}

async function settle(rendered: string): Promise<void> {
  const current = await readFile(FILE, "utf8");
  if (process.argv.includes("--write")) {
    await writeFile(FILE, rendered);
    console.log(current === rendered ? "shared/routing/thresholds.ts was up to date" : "shared/routing/thresholds.ts written");
  } else if (current !== rendered) {
    console.log("shared/routing/thresholds.ts is out of date: run npm run calibrate -- --write");
    if (process.argv.includes("--check")) process.exitCode = 1;
  } else console.log("shared/routing/thresholds.ts is up to date");
}
