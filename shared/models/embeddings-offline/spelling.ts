/** Sees through one slip of the finger in a word that nobody uses: "tutorail" is read as "tutorial" too. */
import type { WeightedWord } from "./words.ts";

const LETTERS = [..."abcdefghijklmnopqrstuvwxyz"];
const SHORTEST = 5;
const LONGEST = 16;
/** Only commoner words are guessed: rare ones are more often names than what was meant. */
const COMMON_RANK = 15_000;
/** About 700 look-ups each; a pasted file full of identifiers must not cost more than a few milliseconds. */
const MOST_GUESSES = 16;
/** A guess counts less than a word that was written. */
const GUESS_WEIGHT = 0.7;

/** The words, and after each unknown one the commonest known word that is one edit away, if there is any. */
export function corrected(words: readonly WeightedWord[], ranks: ReadonlyMap<string, number>): WeightedWord[] {
  let guesses = 0;
  return words.flatMap((word) => {
    const { text, weight } = word;
    if (guesses >= MOST_GUESSES || text.length < SHORTEST || text.length > LONGEST || ranks.has(text) || !/^[a-z]+$/.test(text)) return [word];
    guesses += 1;
    const guess = commonest(oneEditAway(text), ranks);
    return guess === undefined ? [word] : [word, { text: guess, weight: weight * GUESS_WEIGHT }];
  });
}

function commonest(words: readonly string[], ranks: ReadonlyMap<string, number>): string | undefined {
  let best: string | undefined;
  let bestRank = COMMON_RANK;
  for (const word of words) {
    const rank = ranks.get(word) ?? COMMON_RANK;
    if (rank < bestRank) {
      best = word;
      bestRank = rank;
    }
  }
  return best;
}

/** Norvig's four edits: a letter left out, two swapped, one wrong, one too many. */
function oneEditAway(word: string): string[] {
  const edits: string[] = [];
  for (let i = 0; i <= word.length; i++) {
    const before = word.slice(0, i);
    const after = word.slice(i);
    for (const letter of LETTERS) edits.push(before + letter + after, before + letter + after.slice(1));
    if (after.length > 0) edits.push(before + after.slice(1));
    if (after.length > 1) edits.push(before + after.charAt(1) + after.charAt(0) + after.slice(2));
  }
  return edits;
}
