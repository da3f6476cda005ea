/**
 * Whether a part of a command speaks of what an earlier part brings. In doubt it does: a step that waits without need is late, a step
 * that should have waited answers without its input.
 */

/** What steps bring. "the customers" are in the attachments; "the findings" are not there yet. */
const RESULT =
  "(?:results?|findings?|issues?|problems?|bugs?|defects?|flaws?|errors?|failures?|vulnerabilit(?:y|ies)|outputs?|outcomes?|summar(?:y|ies)|reports?|analys[ei]s|reviews?|answers?|replies|reply|recommendations?|suggestions?|conclusions?|insights?|gaps?|drafts?|remarks?|comments?|risks?|weaknesses|mistakes?|points?|items?|scores?|verdict|tests?|tickets?)";
/** "the error rates" are no errors: nothing that could be the real noun stands behind. */
const HEAD = "(?=$| ?[^a-z\\s]| (?:of|in|on|for|from|to|into|with|by|at|as|and|or|that|which|you|we|they|is|are|was|were|found|above|before|so|if|back)\\b)";
const BACK: readonly RegExp[] = [
  /\b(?:it|its|them|both|itself|themselves)\b/,
  // "each issue", "every one", "any bug that you find"
  /\b(?:each|every)\b/,
  new RegExp(`\\b(?:the|these|those|that|this|any|all|all the|all of the|its|your|resulting)(?: [\\w-]+){0,2} ${RESULT}${HEAD}`),
  /\b(?:that|those)(?= \w)/,
  /\b(?:these|those|this|that)\s*(?:$|[,.;:!?]|to|in|into|for|as|on|with|and)/,
  /\bones?\b/,
  /\b(?:based on|according to|depending on|accordingly|as a result|with the result|from there|follow(?:ed)? up|otherwise|if so|if not|whatever|anything|everything) ?/,
  /\bif (?:there|any|it|the|nothing|something|one|no|you|that|this|all)\b/,
  /\b(?:you|was|were|been) (?:have )?(?:find|found|discover(?:ed)?|detect(?:ed)?|identif(?:y|ied)|report(?:ed)?|produced?|wrote|written|created?|made|generated?|list(?:ed)?|suggest(?:ed)?)\b/,
  /\b(?:found|resulting)\b/,
];
/** A part that begins so comes after the one before, whatever it speaks of. */
const AFTER =
  /^(?:[\s,;]|and\b)*(?:then|after (?:that|this|which)|afterwards?|subsequently|next|finally|lastly|later|once (?:that|this|it|done|finished)|when (?:that|this|it|done|finished|you))\b/;
/** Speaks of all that came before, not only of the part before. */
const ALL = /\b(?:both|together|combined?|everything|altogether|all (?:of )?(?:it|them|this|that|these|those|results|the (?:results|findings|above)))\b/;

export type Reference = "none" | "last" | "all";

/** `text` is one part as it stands in the command, its connecting words included. */
export function referenceOf(text: string): Reference {
  const plain = text.toLowerCase().replaceAll("’", "'").replace(/\s+/g, " ").trim();
  if (ALL.test(plain)) return "all";
  return AFTER.test(plain) || BACK.some((pattern) => pattern.test(plain)) ? "last" : "none";
}
