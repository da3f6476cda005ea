/** Reads a prompt as its reader should: what stands between two marks is data, all else is not. */
import { expect } from "vitest";
import type { ProviderRequest } from "../support/scripted-provider.ts";

interface Message {
  role: string;
  content: string | { type: string; text?: string }[];
}

/** The text of the first user's turn. */
export function firstTurn(request: ProviderRequest): string {
  const [first] = request.body.messages as Message[];
  if (first?.role !== "user") throw new Error("the prompt does not begin with the user's turn");
  return typeof first.content === "string" ? first.content : first.content.map(({ text }) => text ?? "").join("\n");
}

/** The prompt without its data. Throws for a mark that stands anywhere but around its own data. */
export function withoutData(prompt: string): string {
  const marks: string[] = [];
  let outside = "";
  let rest = prompt;
  for (;;) {
    const open = /<(data-[0-9a-f]{24})>\n/.exec(rest);
    if (!open?.[1]) break;
    const end = `\n</${open[1]}>`;
    const from = open.index + open[0].length;
    const to = rest.indexOf(end, from);
    if (to < 0) throw new Error(`the data of ${open[1]} has no end`);
    marks.push(open[1]);
    outside += rest.slice(0, open.index);
    rest = rest.slice(to + end.length);
  }
  for (const mark of marks) expect(prompt.split(mark), "a mark opens and closes once").toHaveLength(3);
  return outside + rest;
}
