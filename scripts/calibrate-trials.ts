/** Puts labelled commands before catalogues of every size. Shared by `npm run calibrate` and the tests of the fitted thresholds. */

import type { Embedder } from "../shared/models/embedder.ts";
import { BACKGROUND_SENTENCES } from "../shared/routing/background.ts";
import { buildCapabilityIndex, type CommandScores, type IndexedPlugin, scoreCommand } from "../shared/routing/capability-index.ts";
import type { CataloguePlugin, LabelledCommand } from "../test/corpus/corpus.ts";
import type { Sample } from "./calibrate-fit.ts";

export interface Trial {
  readonly command: string;
  /** null: nothing in this catalogue fits. */
  readonly wanted: string | null;
  readonly scores: CommandScores;
}

export interface Embedded {
  readonly model: string;
  readonly plugins: readonly IndexedPlugin[];
  readonly background: readonly Float32Array[];
}

export async function embedCatalogue(embedder: Embedder, catalogue: readonly CataloguePlugin[]): Promise<Embedded> {
  const vectors = await embedder.embed(catalogue.flatMap((entry) => entry.capabilities));
  let from = 0;
  const plugins = catalogue.map(({ plugin, capabilities }) => {
    const own = vectors.slice(from, from + capabilities.length);
    from += capabilities.length;
    return { plugin, texts: capabilities, vectors: own };
  });
  return { model: embedder.model, plugins, background: await embedder.embed(BACKGROUND_SENTENCES) };
}

/** Every command against the plugins named, or all; a command whose plugin is not among them is foreign there. */
export function trialsOf(commands: readonly LabelledCommand[], vectors: readonly Float32Array[], { model, plugins, background }: Embedded, names?: readonly string[]): Trial[] {
  const chosen = plugins.filter(({ plugin }) => names?.includes(plugin) ?? true);
  const index = buildCapabilityIndex(model, chosen, background);
  return commands.map(({ plugin, text }, i) => ({
    command: text,
    wanted: index.plugins.find((name) => name === plugin) ?? null,
    scores: scoreCommand(index, vectors[i] ?? new Float32Array()),
  }));
}

export function subsetsOf(names: readonly string[]): string[][] {
  return Array.from({ length: 2 ** names.length - 1 }, (_, mask) => names.filter((__, i) => ((mask + 1) >> i) & 1));
}

/** All parts of the catalogue, the whole one counting as much as all parts of each other size together, times `WHOLE_COUNTS`. */
export function samplesOf(commands: readonly LabelledCommand[], vectors: readonly Float32Array[], embedded: Embedded): Sample[] {
  const subsets = subsetsOf(embedded.plugins.map(({ plugin }) => plugin));
  return subsets.flatMap((names) => {
    const alike = subsets.filter((other) => other.length === names.length).length;
    const weight = (names.length === embedded.plugins.length ? WHOLE_COUNTS : 1) / alike;
    return trialsOf(commands, vectors, embedded, names).map((trial, command) => ({
      scores: trial.scores,
      wanted: trial.wanted,
      weight,
      command,
    }));
  });
}

/** A full catalogue is the usual case; small ones are how every tenant and every test begins. */
const WHOLE_COUNTS = 3;
