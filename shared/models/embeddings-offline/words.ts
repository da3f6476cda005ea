/** How the offline model cuts a text into words, and how much each word counts. */

/** The wish stands at the beginning or the end of a command; what lies between is often pasted material, of which a part is enough. */
const HEAD_CHARACTERS = 3_000;
const TAIL_CHARACTERS = 1_000;
const HEAD_WORDS = 64;
const TAIL_WORDS = 16;
const TAIL_WEIGHT = 0.5;
/** All that lies between the first line and the last counts together like this many words at most. */
const MIDDLE_WORDS = 12;
const LONGEST_WORD = 40;

/** Not zero, so that a text of nothing but such words still has a direction. */
const STOP_WORD_WEIGHT = 0.05;

const STOP_WORDS = new Set(
  `a an the this that these those i me my mine we us our ours you your yours he him his she her hers it its they them their
  and or but if then than so as at by for from in into of off on onto out over to up with without about
  is am are was were be been being do does did doing done have has had having can could may might must shall should will would
  not no nor too very just only also there here where when who whom whose which what why how any some all both each every few more most other such own same
  please pls plz hi hey hello dear thanks thank kindly need want like let make give get got go going tell show help im
  one ones thing things something anything everything someone somebody anyone anybody else again now yet still already ever never
  m s d ll ve re t don doesn didn isn aren won wouldn couldn`.split(/\s+/),
);

export function isStopWord(word: string): boolean {
  return STOP_WORDS.has(word);
}

export interface WeightedWord {
  readonly text: string;
  /** 0 to 1, from the word's place and whether it is a stop word; how rare the word is comes later. */
  readonly weight: number;
}

/** Letters of any alphabet, accents removed; `camelCase` is two words, `TCK-812` and `total()` keep what their shape says. */
export function wordsOf(text: string): WeightedWord[] {
  const lines = cut(text)
    .split("\n")
    .map(split)
    .filter((words) => words.length > 0);
  const words = lines.flat();
  const head = Math.min(HEAD_WORDS, lines[0]?.length ?? 0);
  const tail = words.length - Math.min(TAIL_WORDS, lines.length > 1 ? (lines.at(-1)?.length ?? 0) : TAIL_WORDS, words.length - head);
  const middleWeight = Math.min(1, MIDDLE_WORDS / (tail - head));
  return words.map((word, i) => {
    const placed = i < head ? 1 : i >= tail ? TAIL_WEIGHT : middleWeight;
    return { text: word.slice(0, LONGEST_WORD), weight: placed * (STOP_WORDS.has(word) ? STOP_WORD_WEIGHT : 1) };
  });
}

function cut(text: string): string {
  if (text.length <= HEAD_CHARACTERS + TAIL_CHARACTERS) return text;
  return `${text.slice(0, HEAD_CHARACTERS)}\n${text.slice(-TAIL_CHARACTERS)}`;
}

function split(line: string): string[] {
  const marked = line
    .normalize("NFKD")
    .replace(/\p{M}+/gu, "")
    .replace(/\b[A-Z]{2,10}-\d{1,7}\b/g, " $& ticketreference ")
    .replace(/\w\(\)/g, "$& functioncall ")
    .replace(/(\p{Ll})(\p{Lu})/gu, "$1 $2");
  return marked.toLowerCase().match(/\p{L}+/gu) ?? [];
}

/** Smooth inverse frequency (Arora et al., 2017): a word's rank gives its frequency by Zipf's law. Rare words count about 1, the commonest near 0. */
export function rarity(rank: number): number {
  const smoothing = 1e-3;
  const frequency = 1 / ((rank + 2.7) * 13);
  return smoothing / (smoothing + frequency);
}
