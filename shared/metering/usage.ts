/** Reads what a provider counted, and counts for it where it did not. */
import * as v from "valibot";
import type { TokenCounts } from "./prices.ts";

/** The journal's columns are 32-bit; a larger number is no count of tokens. */
const Tokens = v.pipe(v.number(), v.safeInteger(), v.minValue(0), v.maxValue(2_147_483_647));
const MaybeTokens = v.optional(v.nullable(Tokens));

const Usage = v.looseObject({
  input_tokens: Tokens,
  output_tokens: Tokens,
  cache_creation_input_tokens: MaybeTokens,
  cache_read_input_tokens: MaybeTokens,
  cache_creation: v.optional(v.nullable(v.looseObject({ ephemeral_1h_input_tokens: MaybeTokens }))),
  inference_geo: v.optional(v.nullable(v.string())),
});

export interface MeteredUsage {
  counts: TokenCounts;
  /** What is stored: the provider's own object, or our estimate, marked `estimated`. */
  raw: Record<string, unknown>;
}

/** Null when the provider's object is missing or is not a count of tokens. */
export function readUsage(raw: unknown): MeteredUsage | null {
  const parsed = v.safeParse(Usage, raw);
  if (!parsed.success) return null;
  const usage = parsed.output;
  const written = usage.cache_creation_input_tokens ?? 0;
  const kept1h = Math.min(usage.cache_creation?.ephemeral_1h_input_tokens ?? 0, written);
  return {
    counts: {
      input: usage.input_tokens,
      output: usage.output_tokens,
      cacheWrite5m: written - kept1h,
      cacheWrite1h: kept1h,
      cacheRead: usage.cache_read_input_tokens ?? 0,
      inUs: usage.inference_geo === "us",
    },
    raw: usage,
  };
}

/** Four bytes a token, which is what English prose and source code come to. */
const BYTES_PER_TOKEN = 4;

/** For an answer that came without a usable count. What the provider did say is kept beside the estimate. */
export function estimateUsage(requestBytes: number, answerBytes: number, said: unknown): MeteredUsage {
  const input = Math.ceil(requestBytes / BYTES_PER_TOKEN);
  const output = Math.ceil(answerBytes / BYTES_PER_TOKEN);
  return {
    counts: { input, output, cacheWrite5m: 0, cacheWrite1h: 0, cacheRead: 0, inUs: false },
    raw: { estimated: true, input_tokens: input, output_tokens: output, ...(said === undefined || said === null ? {} : { reported: said }) },
  };
}
