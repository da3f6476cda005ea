/** The text that is kept of a document that somebody sends. */
import { Refusal } from "../errors.ts";
import type { MediaType } from "./documents.ts";
import { htmlToMarkdown } from "./html-to-markdown.ts";

/** First bytes of files that people send by mistake, as they look after any decoding. */
const FILE_MARKS = /^(%PDF-|PK\p{Cc}|.?PNG\r\n|GIF8[79]a|\{\\rtf)/u;
/** Control characters but for line breaks and tabs, and what decoders put for bytes that they could not read. */
const NOT_TEXT = /[^\P{Cc}\t\n\f\r]|\ufffd/gu;
/** A few stray characters stand in many old documents; more is a file that was read as text. */
const MAX_NOT_TEXT_SHARE = 0.01;

/** The document as text or Markdown. Throws UNSUPPORTED_MEDIA_TYPE for what is no text, INVALID_INPUT for what has no words. */
export function documentText(content: string, mediaType: MediaType): string {
  const strays = content.match(NOT_TEXT)?.length ?? 0;
  if (FILE_MARKS.test(content) || strays > content.length * MAX_NOT_TEXT_SHARE)
    throw new Refusal("UNSUPPORTED_MEDIA_TYPE", { message: "The content is a file of another kind, or text in another encoding. Send the document's text, in UTF-8." });
  const clean = content
    .replace(/^\ufeff/, "")
    .replace(NOT_TEXT, "")
    .replace(/\r\n?|[\f\u2028\u2029]/g, "\n");
  const text = (mediaType === "text/html" ? htmlToMarkdown(clean) : clean).trim();
  if (!/[\p{L}\p{N}]/u.test(text)) throw new Refusal("INVALID_INPUT", { message: "The document has no words in it." });
  return text;
}
