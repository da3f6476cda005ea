/** The places of a command that are not to be read as instructions: code, quotations, addresses, brackets. */

/** One private-use character for each character that is hidden, so that places stay where they are. */
export const OPAQUE = "\uE000";

/** Longest opener first. An opener without its end hides all that follows: what is quoted is never taken for a command. */
const SPANS: readonly RegExp[] = [
  /```[\s\S]*?(?:```|$)/g,
  /~~~[\s\S]*?(?:~~~|$)/g,
  /`[^`\n]*(?:`|$)/g,
  /\b(?:[a-z][a-z0-9+.-]{1,20}:\/\/|www\.)[^\s<>"]+/gi,
  /[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+/g,
  /“[^”]*(?:”|$)/g,
  /„[^“”]*(?:[“”]|$)/g,
  /«[^»]*(?:»|$)/g,
  /"[^"]*(?:"|$)/g,
  /(?<![\p{L}\p{N}])['‘][^'’\n]*(?:['’](?![\p{L}\p{N}])|$)/gu,
  /\([^()]*\)/g,
  /\[[^[\]]*\]/g,
  /\{[^{}]*\}/g,
  /<[^<>\n]*>/g,
];

/** The command with those places hidden; the same length as it was. */
export function hideOpaque(command: string): string {
  let text = command.replaceAll(OPAQUE, " ");
  for (const span of SPANS) text = text.replace(span, (match) => trailing(match));
  return text;
}

/** A full stop or comma at the end of an address belongs to the sentence. */
function trailing(match: string): string {
  const tail = /^[a-z][a-z0-9+.-]*:\/\/|^www\./i.test(match) ? (/[.,;:!?)]+$/.exec(match)?.[0] ?? "") : "";
  return OPAQUE.repeat(match.length - tail.length) + tail;
}
