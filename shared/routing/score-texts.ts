/** Scores texts against the plugins that a tenant may see: by embeddings, in one call for all texts, or by keywords when those are down. */
import type { Embedder } from "../models/embedder.ts";
import type { Catalogue, CatalogueEntry } from "../registry/catalogue.ts";
import { timeLimit } from "../sdk/src/time-limit.ts";
import type { Telemetry } from "../telemetry/domain-events.ts";
import { BACKGROUND_SENTENCES } from "./background.ts";
import { buildCapabilityIndex, type CapabilityIndex, scoreCommand } from "./capability-index.ts";
import { type Decision, type DecisionLines, decide, thresholdsFor } from "./decide.ts";
import { decideByKeyword, KEYWORD_LINES } from "./keyword.ts";
import { withoutQuotes } from "./without-quotes.ts";

const EMBED_TIMEOUT_MS = 3_000;
/** After a time-out the embedding service is left alone, so that an outage costs an instance one time-out in a while and not one a request. */
const REST_MS = 10_000;

export interface Scorer {
  catalogue: Catalogue;
  embedder: Embedder;
  /** The operator's own lines, where they are set. */
  thresholds: { chainThreshold?: number; confidenceMin?: number };
  /** The plugins that this tenant may see; null: all. What is not among them cannot be found, named or offered. */
  visible: ReadonlySet<string> | null;
  telemetry: Pick<Telemetry, "degraded">;
}

export interface ScoredText {
  readonly text: string;
  readonly decision: Decision;
  /** The lines that decided; keywords have lines of their own. */
  readonly lines: DecisionLines;
  /** The text's own vector, to be stored with the task and not made again; null when keywords decided. */
  readonly embedding: { readonly model: string; readonly vector: Float32Array } | null;
}

/** The plugin of this name, if the tenant may see it. */
export function findVisible({ catalogue, visible }: Pick<Scorer, "catalogue" | "visible">, name: string): CatalogueEntry | undefined {
  return visible?.has(name) === false ? undefined : catalogue.plugins.get(name);
}

/** One entry per text, in their order. What a text quotes does not decide, but its vector is that of all of it. Never fails because the embedding service does. */
export async function scoreTexts(scorer: Scorer, texts: readonly string[]): Promise<ScoredText[]> {
  const { embedder, visible } = scorer;
  const thresholds = thresholdsFor(embedder.model, scorer.thresholds);
  // Most texts quote nothing and stand here once.
  const distinct = [...new Set([...texts, ...texts.map(withoutQuotes)])];
  const embedded = await embedAll(scorer, distinct);
  if (!embedded) return scoreByKeyword(scorer, texts);
  const { index, vectors } = embedded;
  const vectorOf = (text: string) => vectors[distinct.indexOf(text)] ?? new Float32Array();
  return texts.map((text) => {
    const decision = decide(scoreCommand(index, vectorOf(withoutQuotes(text)), visible), thresholds);
    return { text, decision, lines: linesOf(thresholds), embedding: { model: embedder.model, vector: vectorOf(text) } };
  });
}

const linesOf = ({ chainThreshold, confidenceMin }: DecisionLines): DecisionLines => ({ chainThreshold, confidenceMin });

function scoreByKeyword({ catalogue, visible }: Scorer, texts: readonly string[]): ScoredText[] {
  const plugins = [...catalogue.plugins.values()].filter(({ name }) => visible?.has(name) !== false).map(({ name, manifest }) => ({ plugin: name, texts: manifest.capabilities }));
  return texts.map((text) => ({ text, decision: decideByKeyword(withoutQuotes(text), plugins), lines: KEYWORD_LINES, embedding: null }));
}

const restsUntil = new WeakMap<Embedder, number>();

/** Null when the embedding service does not answer in time, or with what are no vectors of its model. */
async function embedAll({ catalogue, embedder, telemetry }: Scorer, texts: readonly string[]): Promise<{ index: CapabilityIndex; vectors: Float32Array[] } | null> {
  if ((restsUntil.get(embedder) ?? 0) > performance.now()) return null;
  const timeOut = timeLimit(EMBED_TIMEOUT_MS);
  try {
    const [vectors, index] = await Promise.race([Promise.all([embedder.embed(texts, timeOut), indexOf(catalogue, embedder)]), rejection(timeOut)]);
    if (vectors.length !== texts.length) throw new RangeError(`the embedding model answered ${vectors.length} vectors for ${texts.length} texts`);
    return { index, vectors };
  } catch (error) {
    if (timeOut.aborted) restsUntil.set(embedder, performance.now() + REST_MS);
    telemetry.degraded("embeddings", error);
    return null;
  }
}

function rejection(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason), { once: true }));
}

const indices = new WeakMap<Catalogue, Map<string, Promise<CapabilityIndex>>>();

/** Built once per catalogue and model. Plugins whose vectors are of another model are embedded here. */
function indexOf(seen: Catalogue, embedder: Embedder): Promise<CapabilityIndex> {
  const catalogue = seen.whole ?? seen;
  const ofCatalogue = indices.get(catalogue) ?? new Map<string, Promise<CapabilityIndex>>();
  indices.set(catalogue, ofCatalogue);
  let index = ofCatalogue.get(embedder.model);
  if (!index) {
    index = buildIndex(catalogue, embedder);
    ofCatalogue.set(embedder.model, index);
    index.catch(() => ofCatalogue.delete(embedder.model));
  }
  return index;
}

async function buildIndex(catalogue: Catalogue, embedder: Embedder): Promise<CapabilityIndex> {
  const plugins = await Promise.all(
    [...catalogue.plugins.values()].map(async (entry) => {
      const texts = entry.manifest.capabilities;
      return { plugin: entry.name, texts, vectors: entry.vectors.get(embedder.model) ?? (await embedder.embed(texts)) };
    }),
  );
  return buildCapabilityIndex(embedder.model, plugins, await backgroundOf(embedder));
}

const backgrounds = new WeakMap<Embedder, Promise<Float32Array[]>>();

/** The background never changes for a model: it is embedded once per process, not once per catalogue. */
function backgroundOf(embedder: Embedder): Promise<Float32Array[]> {
  let vectors = backgrounds.get(embedder);
  if (!vectors) {
    vectors = embedder.embed(BACKGROUND_SENTENCES);
    backgrounds.set(embedder, vectors);
    vectors.catch(() => backgrounds.delete(embedder));
  }
  return vectors;
}
