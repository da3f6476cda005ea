/** Routing without embeddings: shared stems between the command and the capability strings. For when the embedding service is down. */
import { stemmer } from "stemmer";
import { type Candidate, type Decision, judge } from "./decide.ts";

export interface DescribedPlugin {
  readonly plugin: string;
  readonly texts: readonly string[];
}

const LIMITS = { chainThreshold: 0.8, confidenceMin: 0.3 };

/** The same kind of decision as `decide`, with `method: "keyword"`; more careful, because it sees less. */
export function decideByKeyword(command: string, plugins: readonly DescribedPlugin[]): Decision {
  const wanted = new Set(stems(command.slice(0, 4_000)));
  const candidates = plugins.map(({ plugin, texts }): Candidate => {
    const own = new Set(texts.flatMap((text) => stems(text)));
    const shared = [...wanted].filter((stem) => own.has(stem)).length;
    const score = wanted.size === 0 ? 0 : shared / wanted.size;
    return { plugin, score, probability: score };
  });
  candidates.sort((a, b) => b.score - a.score || (a.plugin < b.plugin ? -1 : 1));
  return judge(candidates, LIMITS, "keyword");
}

function stems(text: string): string[] {
  return (text.toLowerCase().match(/[a-z0-9]{2,}/g) ?? []).map((word) => stemmer(word));
}
