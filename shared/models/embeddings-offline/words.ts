/** How the offline model cuts a text into words, and how much each word counts. */

/** Nothing after this is read: the wish stands at the beginning or the end of a command, what lies between is pasted material. */
const HEAD_CHARACTERS = 3_000;
const TAIL_CHARACTERS = 1_000;
const HEAD_WORDS = 64;
const TAIL_WORDS = 16;
const MIDDLE_WEIGHT = 0.2;
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
  m s d ll ve re t don doesn didn isn aren won wouldn couldn`
    .split(/\s+/),
);

export interface WeightedWord {
  readonly text: string;
  /** 0 to 1, from the word's place and whether it is a stop word; how rare the word is comes later. */
  readonly weight: number;
}

/** Letters of any alphabet, accents removed; `camelCase` is two words, `TCK-812` and `total()` keep what their shape says. */
export function wordsOf(text: string): WeightedWord[] {
  const words = cut(text)
    .normalize("NFKD")
    .replace(/\p{M}+/gu, "")
    .replace(/\b[A-Z]{2,10}-\d{1,7}\b/g, " $& ticketreference ")
    .replace(/\w\(\)/g, "$& functioncall ")
    .replace(/(\p{Ll})(\p{Lu})/gu, "$1 $2")
    .toLowerCase()
    .match(/\p{L}+/gu);
  if (words === null) return [];
  return words.map((word, i) => ({ text: word.slice(0, LONGEST_WORD), weight: placeWeight(i, words.length) * (STOP_WORDS.has(word) ? STOP_WORD_WEIGHT : 1) }));
}

function cut(text: string): string {
  if (text.length <= HEAD_CHARACTERS + TAIL_CHARACTERS) return text;
  return `${text.slice(0, HEAD_CHARACTERS)} ${text.slice(-TAIL_CHARACTERS)}`;
}

function placeWeight(i: number, count: number): number {
  return i < HEAD_WORDS || i >= count - TAIL_WORDS ? 1 : MIDDLE_WEIGHT;
}

/** Smooth inverse frequency (Arora et al., 2017): a word's rank gives its frequency by Zipf's law. Rare words count about 1, the commonest near 0. */
export function rarity(rank: number): number {
  const smoothing = 1e-3;
  const frequency = 1 / ((rank + 2.7) * 13);
  return smoothing / (smoothing + frequency);
}
