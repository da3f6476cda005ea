/** Which of the offered plugins a caller means who answers a question in words: by number, by name, else by what the words are about. */
import { findVisible, type Scorer, scoreTexts } from "./score-texts.ts";

/** The caller has said what the command is for, so more likely than not is enough; the first choice, without a question, needs far more. */
const LIKELY = 0.5;
const ORDINALS = ["first", "second", "third"];
const NUMBER = /^(?:(?:the|option|number|no|nr)\b[. ]*|#)?(?:(\d)(?:st|nd|rd|th)?|(first|second|third|last))(?: one)?[.)!]*$/;
/** "Not the first" names one and means another; such an answer is not guessed at. */
const NEGATION = /\b(?:not|no|none|neither|nor|never|don'?t|isn'?t|except|without|but|instead)\b/;

/** Null when it could be none or several of them. */
export async function matchAnswer(scorer: Scorer, answer: string, offered: readonly string[]): Promise<string | null> {
  const said = answer.normalize("NFKC").toLowerCase().replace(/\s+/gu, " ").trim();
  const numbered = NUMBER.exec(said);
  if (numbered) return offered[placeOf(numbered, offered.length)] ?? null;
  if (NEGATION.test(said)) return null;
  const words = ` ${said.replace(/[^\p{L}\p{N}]+/gu, " ")} `;
  const named = offered.filter((plugin) => words.includes(` ${plugin.replaceAll("-", " ")} `));
  if (named.length > 0) return named.length === 1 ? (named[0] ?? null) : null;
  const visible = new Set(offered.filter((plugin) => findVisible(scorer, plugin)));
  const [scored] = await scoreTexts({ ...scorer, visible }, [answer]);
  if (!scored) return null;
  const { decision, embedding } = scored;
  if (decision.kind === "direct") return decision.plugin;
  const [best] = decision.candidates;
  return embedding && best && best.probability >= LIKELY ? best.plugin : null;
}

function placeOf([, digit, ordinal]: readonly (string | undefined)[], count: number): number {
  if (digit !== undefined) return Number(digit) - 1;
  return ordinal === "last" ? count - 1 : ORDINALS.indexOf(ordinal ?? "");
}
