/**
 * The text of a web page as Markdown: headings, lists, tables and code keep their form, everything that a reader does not see goes.
 * It listens to a parser's events and builds no tree, so that markup made to explode costs no more than its length.
 */
import { Parser } from "htmlparser2";
import { Refusal } from "../errors.ts";

const HEADINGS: Readonly<Record<string, number>> = { h1: 1, h2: 2, h3: 3, h4: 4, h5: 5, h6: 6 };
const PARAGRAPHS = new Set(
  "p div section article main header footer aside nav ul ol dl dt dd table thead tbody caption blockquote figure figcaption form fieldset address details summary hr".split(" "),
);
const UNSEEN = new Set("script style noscript template svg math iframe object canvas title select textarea".split(" "));
const MAX_INDENT = 8;
/** Pages that people write have some dozens. The parser's time grows with the depth. */
const MAX_DEPTH = 1_000;

/** Throws INVALID_INPUT for HTML that is nested too deeply. */
export function htmlToMarkdown(html: string): string {
  const lines: string[] = [];
  /** The open line in pieces, since a string that grows and is looked at again and again is copied each time. */
  let line: string[] = [];
  let depth = 0;
  let lists: { isOrdered: boolean; count: number }[] = [];
  let preformatted = 0;
  /** Open elements inside the outermost one that is not shown, itself included. */
  let unseen: string[] = [];

  function endLine(): void {
    const text = line.join("").trimEnd();
    if (text.trim() !== "") lines.push(text);
    line = [];
  }
  function endParagraph(): void {
    endLine();
    if (lines.length > 0 && lines.at(-1) !== "") lines.push("");
  }
  function write(text: string): void {
    if (preformatted > 0) {
      const [first = "", ...rest] = text.split("\n");
      line.push(first);
      for (const next of rest) {
        lines.push(line.join("").trimEnd());
        line = [next];
      }
      return;
    }
    const flat = text.replace(/\s+/g, " ");
    const isFirst = line.length === 0;
    const rest = isFirst || line.at(-1)?.endsWith(" ") ? flat.trimStart() : flat;
    if (rest === "") return;
    // What only looks like a heading or a fence is neither.
    line.push(isFirst && /^(#|```)/.test(rest) ? `\\${rest}` : rest);
  }

  const parser = new Parser({
    onopentag(name, attributes) {
      if (++depth > MAX_DEPTH) throw new Refusal("INVALID_INPUT", { message: `The HTML is nested more than ${MAX_DEPTH} levels deep.` });
      if (unseen.length > 0 || UNSEEN.has(name) || "hidden" in attributes || /display\s*:\s*none/i.test(attributes.style ?? "")) {
        unseen.push(name);
        return;
      }
      if (PARAGRAPHS.has(name)) endParagraph();
      const level = HEADINGS[name];
      if (level) {
        endParagraph();
        line = [`${"#".repeat(level)} `];
      } else if (name === "br") endLine();
      else if (name === "ul" || name === "ol") lists.push({ isOrdered: name === "ol", count: 0 });
      else if (name === "li") {
        endLine();
        const list = lists.at(-1);
        if (list) list.count += 1;
        line = [`${"  ".repeat(Math.min(Math.max(0, lists.length - 1), MAX_INDENT))}${list?.isOrdered ? `${list.count}.` : "-"} `];
      } else if (name === "tr") endLine();
      else if ((name === "td" || name === "th") && line.length > 0) line.push(" | ");
      else if (name === "pre") {
        endParagraph();
        if (preformatted++ === 0) lines.push("```");
      }
    },
    onclosetag(name) {
      depth -= 1;
      if (unseen.length > 0) {
        unseen = unseen.slice(0, Math.max(0, unseen.lastIndexOf(name)));
        return;
      }
      if (name === "ul" || name === "ol") lists = lists.slice(0, -1);
      if (name === "pre" && preformatted > 0 && --preformatted === 0) {
        endLine();
        lines.push("```");
      }
      if (PARAGRAPHS.has(name) || HEADINGS[name] || name === "pre") endParagraph();
      else if (name === "li" || name === "tr") endLine();
    },
    ontext(text) {
      if (unseen.length === 0) write(text);
    },
  });
  parser.end(html);
  endLine();
  return lines.join("\n").trim();
}
