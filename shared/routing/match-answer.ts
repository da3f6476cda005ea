/** Which of the offered plugins a caller means who answers a question in words: by number, by name, else by what the words are about. */
import { findVisible, type Scorer, scoreTexts } from "./score-texts.ts";

/** The caller has said what the command is for, so more likely than not is enough; the first choice, without a question, needs far more. */
const LIKELY = 0.5;
const ORDINALS = ["first", "second", "third", "fourth"];
const NUMBER = /^(?:(?:the|option|number|no|nr)\b[. ]*|#)?(?:(\d)(?:st|nd|rd|th)?|(first|second|third|fourth|last))(?: one)?[.)!]*$/;
/** "Not the first" names one and means another; such an answer is not guessed at. */
const NEGATION = /\b(?:not|no|none|neither|nor|never|don'?t|isn'?t|except|without|but|instead)\b/;
const EACH = /\b(?:both|each|all of (?:them|it)|(?:the|a) (?:plan|chain)|one after (?:the other|another)|together)\b/;

/** `offered`: the names in the order in which they were shown; null stands for the plan of all parts. The place of the one that is meant, or null when it could be none or several. */
export async function matchAnswer(scorer: Scorer, answer: string, offered: readonly (string | null)[], parts: readonly string[] = []): Promise<number | null> {
  const said = answer.normalize("NFKC").toLowerCase().replace(/\s+/gu, " ").trim();
  const numbered = NUMBER.exec(said);
  if (numbered) return placed(placeOf(numbered, offered.length), offered.length);
  if (NEGATION.test(said)) return null;
  const words = ` ${said.replace(/[^\p{L}\p{N}]+/gu, " ")} `;
  const names = offered.filter((plugin) => plugin !== null);
  const named = names.filter((plugin) => words.includes(` ${plugin.replaceAll("-", " ")} `));
  const chain = offered.indexOf(null);
  if (chain >= 0 && (named.length === 0 ? EACH.test(said) : !/\bor\b/.test(said) && new Set(parts).size === named.length && named.every((name) => parts.includes(name))))
    return chain;
  if (named.length > 0) return named.length === 1 ? offered.indexOf(named[0] ?? "") : null;
  const visible = new Set(names.filter((plugin) => findVisible(scorer, plugin)));
  const [scored] = await scoreTexts({ ...scorer, visible }, [answer]);
  if (!scored) return null;
  const { decision, embedding } = scored;
  if (decision.kind === "direct") return offered.indexOf(decision.plugin);
  const [best] = decision.candidates;
  return embedding && best && best.probability >= LIKELY ? offered.indexOf(best.plugin) : null;
}

const placed = (place: number, count: number): number | null => (place >= 0 && place < count ? place : null);

function placeOf([, digit, ordinal]: readonly (string | undefined)[], count: number): number {
  if (digit !== undefined) return Number(digit) - 1;
  return ordinal === "last" ? count - 1 : ORDINALS.indexOf(ordinal ?? "");
}
