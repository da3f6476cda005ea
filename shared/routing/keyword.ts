/** Routing without embeddings, for when the embedding service is down: word stems that the command shares with the capability strings. */
import { stemmer } from "stemmer";
import { isStopWord, wordsOf } from "../models/embeddings-offline/words.ts";
import { type Candidate, type Decision, type DecisionLines, judge } from "./decide.ts";

export interface DescribedPlugin {
  readonly plugin: string;
  readonly texts: readonly string[];
}

/** Not probabilities but shares of the command's words; the lines were set on the fit half of the corpus. It sees less, so it dares less. */
export const KEYWORD_LINES: DecisionLines = { chainThreshold: 0.45, confidenceMin: 0.1 };
/** One shared word is a coincidence. */
const WORDS_FOR_DIRECT = 2;

/** The same kind of decision as `decide`, with `method: "keyword"`. Needs no vectors and no network. */
export function decideByKeyword(command: string, plugins: readonly DescribedPlugin[]): Decision {
  const wanted = stemsOf(command);
  const known = plugins.map(({ plugin, texts }) => ({ plugin, stems: new Set(texts.flatMap((text) => [...stemsOf(text)])) }));
  // A word that several plugins claim says little about which of them is meant.
  const worth = new Map([...wanted].map((stem) => [stem, 1 / Math.max(1, known.filter(({ stems }) => stems.has(stem)).length)]));
  const candidates = known.map(({ plugin, stems }) => {
    const shared = [...wanted].filter((stem) => stems.has(stem));
    const score = shared.reduce((sum, stem) => sum + (worth.get(stem) ?? 0), 0) / Math.max(1, wanted.size);
    return { plugin, score, shared: shared.length };
  });
  candidates.sort((a, b) => b.score - a.score || (a.plugin < b.plugin ? -1 : 1));
  const [best, second] = candidates;
  const judged = candidates.map(({ plugin, score, shared }): Candidate => {
    const rival = plugin === best?.plugin ? (second?.score ?? 0) : (best?.score ?? 0);
    const lead = score === 0 ? 0 : score / (score + rival);
    return { plugin, score, probability: Math.min(score * lead, shared < WORDS_FOR_DIRECT ? KEYWORD_LINES.chainThreshold - 0.01 : 1) };
  });
  return judge(judged, KEYWORD_LINES, "keyword");
}

function stemsOf(text: string): Set<string> {
  return new Set(
    wordsOf(text)
      .filter(({ text: word }) => !isStopWord(word))
      .map(({ text: word }) => stemmer(word)),
  );
}
