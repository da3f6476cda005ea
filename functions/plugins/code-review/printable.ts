/**
 * Text from a diff, a file name or a model ends up on terminals and in Markdown. Control characters (a terminal's escape
 * sequences among them) and marks that reorder text would let it rewrite what the reader sees.
 */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it removes.
const UNPRINTABLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]|[\u{e0000}-\u{e007f}]|\p{Cs}/gu;

export function printable(text: string): string {
  return text.replace(UNPRINTABLE, "\u{fffd}");
}

/** One line of at most `max` characters. */
export function oneLine(text: string, max: number): string {
  const flat = printable(text.slice(0, max * 4))
    .replace(/\s+/g, " ")
    .trim();
  return flat.length > max ? `${flat.slice(0, max - 1)}…` : flat;
}

/** Inline code; a fence longer than any run of backticks inside keeps the text from ending it. */
export function code(text: string): string {
  const longest = Math.max(0, ...Array.from(text.matchAll(/`+/g), (run) => run[0].length));
  const fence = "`".repeat(longest + 1);
  return longest ? `${fence} ${text} ${fence}` : `${fence}${text}${fence}`;
}

/** Prose for Markdown: keeps the words, takes away links, images and HTML. */
export function prose(text: string): string {
  return printable(text)
    .replace(/[<>]/g, (mark) => (mark === "<" ? "&lt;" : "&gt;"))
    .replace(/!?\[([^\]\n]{0,500})\]\([^)\n]{0,2000}\)/g, "$1");
}
