/**
 * The text of a web page as Markdown: headings, lists, tables and code keep their form, everything that a reader does not see goes.
 * It listens to a parser's events and builds no tree, so that neither deep nesting nor markup made to explode costs more than its length.
 */
import { Parser } from "htmlparser2";

const HEADINGS: Readonly<Record<string, number>> = { h1: 1, h2: 2, h3: 3, h4: 4, h5: 5, h6: 6 };
const PARAGRAPHS = new Set(
  "p div section article main header footer aside nav ul ol dl dt dd table thead tbody caption blockquote figure figcaption form fieldset address details summary hr".split(" "),
);
const UNSEEN = new Set("script style noscript template svg math iframe object canvas title select textarea".split(" "));
const MAX_INDENT = 8;

export function htmlToMarkdown(html: string): string {
  const lines: string[] = [];
  let line = "";
  let lists: { isOrdered: boolean; count: number }[] = [];
  let preformatted = 0;
  /** Open elements inside the outermost one that is not shown, itself included. */
  let unseen: string[] = [];

  function endLine(): void {
    if (line.trim() !== "") lines.push(line.trimEnd());
    line = "";
  }
  function endParagraph(): void {
    endLine();
    if (lines.length > 0 && lines.at(-1) !== "") lines.push("");
  }
  function write(text: string): void {
    if (preformatted > 0) {
      const [first = "", ...rest] = text.split("\n");
      line += first;
      for (const next of rest) {
        lines.push(line.trimEnd());
        line = next;
      }
      return;
    }
    const flat = text.replace(/\s+/g, " ");
    if (line === "" || line.endsWith(" ")) line += flat.trimStart();
    else line += flat;
    // What only looks like a heading or a fence is neither.
    if (/^(#|```)/.test(line)) line = `\\${line}`;
  }

  const parser = new Parser({
    onopentag(name, attributes) {
      if (unseen.length > 0 || UNSEEN.has(name) || "hidden" in attributes || /display\s*:\s*none/i.test(attributes.style ?? "")) {
        unseen.push(name);
        return;
      }
      if (PARAGRAPHS.has(name)) endParagraph();
      const level = HEADINGS[name];
      if (level) {
        endParagraph();
        line = `${"#".repeat(level)} `;
      } else if (name === "br") endLine();
      else if (name === "ul" || name === "ol") lists.push({ isOrdered: name === "ol", count: 0 });
      else if (name === "li") {
        endLine();
        const list = lists.at(-1);
        if (list) list.count += 1;
        line = `${"  ".repeat(Math.min(Math.max(0, lists.length - 1), MAX_INDENT))}${list?.isOrdered ? `${list.count}.` : "-"} `;
      } else if (name === "tr") endLine();
      else if ((name === "td" || name === "th") && line !== "") line += " | ";
      else if (name === "pre") {
        endParagraph();
        if (preformatted++ === 0) lines.push("```");
      }
    },
    onclosetag(name) {
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
