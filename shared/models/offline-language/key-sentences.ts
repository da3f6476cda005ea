/**
 * The most telling sentences of a text, in their own order: those whose words are frequent in it (after SumBasic: each word weighs its
 * share of the text, and less once it has been said), with what the first sentence asks for weighing double.
 */
import { stemmer } from "stemmer";

const MAX_TEXT_CHARS = 100_000;
const MAX_SENTENCE_CHARS = 400;
const MIN_WORDS = 4;
/** Below this share of letters it is code, a table or a diff. */
const MIN_LETTERS = 0.6;

/** What is left of a word's weight when a chosen sentence holds it. */
const ONCE_SAID = 0.6;

const STOP_WORDS = new Set(
  "a about after all also an and any are as at be because been before but by can could did do does for from had has have he her his how i if in into is it its just like may me more most must my no not of on only or other our out over please she should so some such than that the their them then there these they this those to under up us was we were what when where which while who will with would you your".split(
    " ",
  ),
);

interface Sentence {
  text: string;
  stems: string[];
}

export function keySentences(text: string, atMost: number): string[] {
  const sentences = sentencesOf(text.slice(0, MAX_TEXT_CHARS));
  if (sentences.length <= atMost) return sentences.map((sentence) => sentence.text);

  const weights = weightsOf(sentences);
  const chosen = new Set<Sentence>();
  while (chosen.size < atMost) {
    const best = heaviest(sentences, chosen, weights);
    if (!best) break;
    chosen.add(best);
    for (const stem of new Set(best.stems)) weights.set(stem, (weights.get(stem) ?? 0) * ONCE_SAID);
  }
  return sentences.filter((sentence) => chosen.has(sentence)).map((sentence) => sentence.text);
}

function sentencesOf(text: string): Sentence[] {
  const found: Sentence[] = [];
  const seen = new Set<string>();
  // One line at a time: lists and headings end without a full stop.
  for (const line of text.replace(/```[\s\S]*?(?:```|$)/g, "\n").split(/\n+/)) {
    for (const { segment } of new Intl.Segmenter("en", { granularity: "sentence" }).segment(line)) {
      const sentence = segment.replace(/^[\s#>*\-•\d.)]+(?=\p{L})/u, "").trim();
      const letters = sentence.match(/\p{L}/gu)?.length ?? 0;
      const words = sentence.toLowerCase().match(/[\p{L}\p{N}']+/gu) ?? [];
      if (words.length < MIN_WORDS || letters < sentence.length * MIN_LETTERS || sentence.length > MAX_SENTENCE_CHARS || seen.has(sentence)) continue;
      seen.add(sentence);
      found.push({ text: sentence, stems: words.filter((word) => !STOP_WORDS.has(word)).map((word) => stemmer(word)) });
    }
  }
  return found;
}

function weightsOf(sentences: readonly Sentence[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const { stems } of sentences) for (const stem of stems) counts.set(stem, (counts.get(stem) ?? 0) + 1);
  for (const stem of new Set(sentences[0]?.stems)) counts.set(stem, (counts.get(stem) ?? 0) * 2);
  const total = [...counts.values()].reduce((sum, count) => sum + count, 0);
  return new Map([...counts].map(([stem, count]) => [stem, count / total]));
}

/** Counted to every sentence's length, else the shortest would win with one frequent word. */
const LENGTH_OFFSET = 6;

/** The mean weight of a sentence's words decides; of equals, the earlier one. */
function heaviest(sentences: readonly Sentence[], chosen: ReadonlySet<Sentence>, weights: ReadonlyMap<string, number>): Sentence | undefined {
  let best: Sentence | undefined;
  let bestScore = -1;
  for (const sentence of sentences) {
    if (chosen.has(sentence) || sentence.stems.length === 0) continue;
    const score = sentence.stems.reduce((sum, stem) => sum + (weights.get(stem) ?? 0), 0) / (sentence.stems.length + LENGTH_OFFSET);
    if (score <= bestScore) continue;
    best = sentence;
    bestScore = score;
  }
  return best;
}
