/**
 * The second part of npm run calibrate, or alone as `npm run calibrate -- knowledge`: finds the cosine from which a passage is worth giving to a task, per embedding model, on one half of the questions
 * of test/corpus/knowledge, and shows what the cut does on the other half. `--write` updates shared/knowledge/similarity-cuts.ts, `--check` fails when
 * that file is out of date. text-embedding-3-small takes part when OPENAI_API_KEY is set.
 */
import { readdir, readFile, writeFile } from "node:fs/promises";
import { chunkDocument } from "../shared/knowledge/chunk-document.ts";
import { SIMILARITY_CUTS } from "../shared/knowledge/similarity-cuts.ts";
import type { Embedder } from "../shared/models/embedder.ts";
import { offlineEmbedder } from "../shared/models/embeddings-offline/offline-embedder.ts";
import { openaiEmbedder } from "../shared/models/embeddings-openai.ts";

const CORPUS = new URL("../test/corpus/knowledge/", import.meta.url);
const FILE = new URL("../shared/knowledge/similarity-cuts.ts", import.meta.url);
/** What retrieval gives at most. */
const TOP = 8;
/** Of the passages that answer a question and are among its nearest eight. A passage too many costs some tokens; one too few, the answer. */
const KEPT = 0.9;

interface Judged {
  /** Null: no passage answers this question. */
  wanted: string | null;
  nearest: { title: string; similarity: number }[];
}

export async function calibrateKnowledge(): Promise<void> {
  const { OPENAI_API_KEY: apiKey, OPENAI_BASE_URL: baseUrl } = process.env;
  const cuts: Record<string, { measured: boolean; cut: number }> = { ...SIMILARITY_CUTS };
  for (const embedder of apiKey ? [offlineEmbedder(), openaiEmbedder({ apiKey, baseUrl })] : [offlineEmbedder()]) {
    const judged = await judge(embedder);
    const [fit, test] = [judged.filter((_, i) => i % 2 === 0), judged.filter((_, i) => i % 2 === 1)];
    const cut = chooseCut(fit);
    cuts[embedder.model] = { measured: true, cut };
    console.log(`\n${embedder.model}: passages from a cosine of ${cut}, fitted on ${fit.length} questions\n`);
    console.log(`${"".padEnd(14)}questions  answer among the 8 nearest  answer given  given a question  unanswerable  of these given something  given each`);
    for (const [name, half] of [["fit half", fit] as const, ["test half", test] as const]) console.log(reportLine(name, half, cut));
  }
  await settle(cuts);
}

async function judge(embedder: Embedder): Promise<Judged[]> {
  const files = (await readdir(CORPUS)).filter((name) => name.endsWith(".md")).sort();
  const chunks = (await Promise.all(files.map(async (name) => chunkDocument(await readFile(new URL(name, CORPUS), "utf8"), "text/markdown")))).flat();
  const vectors = await embedder.embed(chunks.map(({ heading, content }) => `${heading}\n${content}`));
  const titles = chunks.map(({ heading }) => heading.split(" > ").at(-1) ?? "");
  const lines = (await readFile(new URL("questions.tsv", CORPUS), "utf8")).split("\n").filter(Boolean);
  const questions = lines.map((line) => line.split("\t"));
  const asked = await embedder.embed(questions.map(([text = ""]) => text));
  return questions.map(([text, title = "-"], i) => {
    if (title !== "-" && !titles.includes(title)) throw new Error(`"${text}" wants a passage that is not there: ${title}`);
    const similarities = vectors.map((vector, at) => ({ title: titles[at] ?? "", similarity: cosine(vector, asked[i]) }));
    return { wanted: title === "-" ? null : title, nearest: similarities.sort((a, b) => b.similarity - a.similarity).slice(0, TOP) };
  });
}

function cosine(a: Float32Array, b: Float32Array | undefined): number {
  return a.reduce((sum, x, i) => sum + x * (b?.[i] ?? 0), 0);
}

/** The highest cut that keeps enough of the answers. */
function chooseCut(judged: readonly Judged[]): number {
  const answers = judged.flatMap(({ wanted, nearest }) => nearest.filter(({ title }) => title === wanted).map(({ similarity }) => similarity));
  const sorted = answers.sort((a, b) => a - b);
  return Math.floor((sorted[Math.floor(sorted.length * (1 - KEPT))] ?? 0) * 100) / 100;
}

function reportLine(name: string, judged: readonly Judged[], cut: number): string {
  const own = judged.filter(({ wanted }) => wanted !== null);
  const foreign = judged.filter(({ wanted }) => wanted === null);
  const isFound = ({ wanted, nearest }: Judged, from: number) => nearest.some(({ title, similarity }) => title === wanted && similarity >= from);
  const given = (some: readonly Judged[]) => some.map(({ nearest }) => nearest.filter(({ similarity }) => similarity >= cut).length);
  const mean = (counts: readonly number[]) => (counts.reduce((sum, count) => sum + count, 0) / counts.length).toFixed(1);
  const share = (part: number, all: number) => `${((100 * part) / all).toFixed(0)} %`;
  const cells = [
    [String(own.length), 9],
    [share(own.filter((one) => isFound(one, -1)).length, own.length), 28],
    [share(own.filter((one) => isFound(one, cut)).length, own.length), 14],
    [mean(given(own)), 18],
    [String(foreign.length), 14],
    [share(given(foreign).filter((count) => count > 0).length, foreign.length), 26],
    [mean(given(foreign)), 12],
  ] as const;
  return name.padEnd(14) + cells.map(([text, width]) => text.padStart(width)).join("");
}

async function settle(cuts: Record<string, { measured: boolean; cut: number }>): Promise<void> {
  const rows = Object.entries(cuts).map(([model, { measured, cut }]) => `  "${model}": { measured: ${measured}, cut: ${cut} },\n`);
  const rendered = `/** Written by \`npm run calibrate -- knowledge --write\` from the fit half of test/corpus/knowledge; do not edit by hand. */

/** The cosine from which a passage is taken to bear on a question. */
export const SIMILARITY_CUTS: Readonly<Record<string, { readonly measured: boolean; readonly cut: number }>> = {
${rows.join("")}};
`;
  const current = await readFile(FILE, "utf8");
  if (process.argv.includes("--write")) {
    await writeFile(FILE, rendered);
    console.log(`\nshared/knowledge/similarity-cuts.ts ${current === rendered ? "was up to date" : "written"}`);
  } else if (current !== rendered) {
    console.log("\nshared/knowledge/similarity-cuts.ts is out of date: run npm run calibrate -- knowledge --write");
    if (process.argv.includes("--check")) process.exitCode = 1;
  } else console.log("\nshared/knowledge/similarity-cuts.ts is up to date");
}
