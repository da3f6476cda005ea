/**
 * What a ticket says was written by strangers: authors of code, mail and documents. Control characters and marks that reorder text would
 * let it rewrite what the reader sees; links, images and HTML would let it act on the page of the tracker.
 */
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it removes.
const UNPRINTABLE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]|[\u{e0000}-\u{e007f}]|\p{Cs}/gu;

const printable = (text: string): string => text.replace(/\r\n?/g, "\n").replace(UNPRINTABLE, "\u{fffd}");

function cut(text: string, max: number): string {
  if (text.length <= max) return text;
  // Not through the middle of a pair of surrogates.
  return `${text.slice(0, max - 1).replace(/[\ud800-\udbff]$/, "")}…`;
}

/** One line of at most `max` characters. */
export function oneLine(text: string, max: number): string {
  return cut(
    printable(text.slice(0, max * 4))
      .replace(/\s+/g, " ")
      .trim(),
    max,
  );
}

/** Prose for Markdown: keeps the words and the lines, takes away links, images and HTML. */
export function prose(text: string, max: number): string {
  const plain = printable(text.slice(0, max * 2))
    .replace(/[<>]/g, (mark) => (mark === "<" ? "&lt;" : "&gt;"))
    .replace(/!?\[([^\]\n]{0,500})\]\([^)\n]{0,2000}\)/g, "$1")
    .trim();
  return cut(plain, max);
}

/** A cell of a Markdown table. */
export function cell(text: string | null, max: number): string {
  return text === null || text === "" ? "–" : oneLine(prose(text, max), max).replace(/[|\\`*_[\]]/g, "\\$&");
}
