/** Reads issues out of what came with the command. Whatever it says is data: a ticket may quote it, and nothing follows it. */
import type { Attachment } from "@aau/sdk";
import { oneLine } from "../printable.ts";
import type { RawIssue } from "./issue-from.ts";
import { issuesInJson } from "./json-issues.ts";
import { issuesInText } from "./text-lists.ts";

const MAX_BYTES = 5 * 1024 * 1024;
/** Code and diffs are what a review works on; they hold no list of issues. */
const NOT_A_LIST = /\.(?:diff|patch|[cm]?[jt]sx?|py|rb|go|rs|java|kt|c|h|cc|cpp|cs|php|swift|sql|sh|css|html?|png|jpe?g|gif|pdf|zip|sarif(?:\.json)?)$/i;

export interface ReadIssues {
  issues: RawIssue[];
  /** What could not be read, for the caller. */
  notes: string[];
  /** Attachments that hold a list of issues, be it an empty one. */
  sources: number;
}

/** `null` for what is not text. */
function textOf({ content, content_base64 }: Attachment): string | null {
  if (content !== undefined) return content.includes("\u0000") ? null : content;
  if (content_base64 === undefined) return null;
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(Buffer.from(content_base64, "base64"));
    return text.includes("\u0000") ? null : text;
  } catch {
    return null;
  }
}

function readOne(attachment: Attachment, isPlural: boolean): RawIssue[] | string {
  const text = textOf(attachment);
  if (text === null) return attachment.url === undefined ? "is not text" : "is a URL; attach its content";
  if (Buffer.byteLength(text) > MAX_BYTES) return "is larger than 5 MB";
  if (text.trim() === "") return "is empty";
  const foundBy = attachment.origin?.plugin ?? null;
  const saysJson = /\bjson\b/i.test(attachment.media_type) || /\.json$/i.test(attachment.name);
  if (!saysJson && !/^\s*[[{]/.test(text)) return issuesInText(text, { isPlural, foundBy });
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return saysJson ? "is not valid JSON" : issuesInText(text, { isPlural, foundBy });
  }
  return issuesInJson(value, foundBy) ?? "holds no list of issues";
}

/** What earlier steps gave back comes first: beside it, the caller's own attachments are what those steps worked on. */
export function readAttachments(attachments: readonly Attachment[], isPlural: boolean): ReadIssues {
  const fromSteps = attachments.filter(({ origin }) => origin !== undefined);
  const candidates = fromSteps.length > 0 ? fromSteps : attachments.filter(({ name, media_type }) => !NOT_A_LIST.test(name) && !/diff|patch|^image\//i.test(media_type));
  const read: ReadIssues = { issues: [], notes: [], sources: 0 };
  for (const attachment of candidates) {
    const found = readOne(attachment, isPlural);
    if (typeof found === "string") read.notes.push(`${oneLine(attachment.name, 120)} ${found}.`);
    else {
      read.sources += 1;
      for (const issue of found) read.issues.push(issue);
    }
  }
  return read;
}
