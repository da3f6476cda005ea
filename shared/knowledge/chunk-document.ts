/** Cuts a document into chunks of about 512 tokens that overlap and never run from one heading into the next. */
import { setImmediate } from "node:timers/promises";
import { RecursiveCharacterTextSplitter } from "@langchain/textsplitters";
// The tokens of text-embedding-3-small; for other models they are a good estimate.
import { countTokens } from "gpt-tokenizer/encoding/cl100k_base";
import type { MediaType } from "./documents.ts";

export interface Chunk {
  /** The headings above it, outermost first. */
  heading: string;
  content: string;
  tokenCount: number;
}

interface Section {
  heading: string;
  text: string;
}

const CHUNK_TOKENS = 512;
const OVERLAP_TOKENS = 64;
const MAX_HEADING = 100;
const MAX_PATH = 300;
/** Nobody reads a longer run without a blank. It is broken, since tokenizers need the square of its length. */
const MAX_RUN = 300;
const TURN_MS = 15;

/** Gives other work its turn: a large document is seconds of counting. */
export async function chunkDocument(text: string, mediaType: MediaType, signal?: AbortSignal): Promise<Chunk[]> {
  let turnEndsAt = performance.now() + TURN_MS;
  const splitter = new RecursiveCharacterTextSplitter({
    chunkSize: CHUNK_TOKENS,
    chunkOverlap: OVERLAP_TOKENS,
    separators: ["\n\n", "\n", " "],
    async lengthFunction(piece) {
      if (performance.now() > turnEndsAt) {
        await setImmediate();
        signal?.throwIfAborted();
        turnEndsAt = performance.now() + TURN_MS;
      }
      return tokensIn(piece);
    },
  });
  const whole = { heading: "", text: withoutLongRuns(text) };
  const sections = mediaType === "text/plain" ? [whole] : sectionsOf(whole.text);
  const chunks: Chunk[] = [];
  // A document that is nothing but headings is one passage after all.
  for (const section of sections.length > 0 ? sections : [whole]) {
    for (const content of await splitter.splitText(section.text)) chunks.push({ heading: section.heading, content, tokenCount: tokensIn(content) });
  }
  return chunks;
}

/** Marks that steer a model, such as `<|endoftext|>`, are words like any other here. */
function tokensIn(text: string): number {
  return countTokens(text, { disallowedSpecial: new Set() });
}

function withoutLongRuns(text: string): string {
  return text.replace(/\S{301,}/gu, (run) => {
    const characters = Array.from(run);
    return Array.from({ length: Math.ceil(characters.length / MAX_RUN) }, (_, i) => characters.slice(i * MAX_RUN, (i + 1) * MAX_RUN).join("")).join("\n");
  });
}

/** The text between headings. A heading without text of its own shows in the paths of those below it. */
function sectionsOf(markdown: string): Section[] {
  const sections: Section[] = [];
  const above: string[] = [];
  let lines: string[] = [];
  let fence: string | null = null;
  const close = () => {
    const text = lines.join("\n").trim();
    if (text !== "") sections.push({ heading: above.filter(Boolean).join(" > ").slice(0, MAX_PATH), text });
    lines = [];
  };
  for (const line of markdown.split("\n")) {
    const mark = /^ {0,3}(```|~~~)/.exec(line)?.[1];
    if (mark && (fence === null || fence === mark)) fence = fence === null ? mark : null;
    const level = fence === null ? (/^ {0,3}(#{1,6})[ \t]/.exec(line)?.[1]?.length ?? 0) : 0;
    if (level === 0) {
      lines.push(line);
      continue;
    }
    close();
    above.length = level - 1;
    above[level - 1] = titleOf(line);
  }
  close();
  return sections;
}

function titleOf(line: string): string {
  return line
    .slice(0, MAX_HEADING)
    .replace(/^[ #]+|[ #]+$/g, "")
    .replace(/\s+/g, " ");
}
