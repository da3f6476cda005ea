/**
 * Where a routing decision is cached: under the tenant, the registry's generation and a digest of the command, so that it cannot
 * cross tenants, survives no change of the catalogue, and never shows the command. The admission script composes the same key.
 */
import { createHash } from "node:crypto";
import * as v from "valibot";

/**
 * Plugin (empty: the model said that none fits), confidence, the embedding model, the language model where that chose, and the candidates.
 * The admission script reads `p` too.
 */
const CachedRoute = v.object({
  p: v.string(),
  c: v.number(),
  m: v.string(),
  l: v.nullable(v.string()),
  k: v.array(v.object({ plugin: v.string(), score: v.number(), probability: v.number() })),
});
export type CachedRoute = v.InferOutput<typeof CachedRoute>;

export function commandDigest(command: string): string {
  return createHash("sha256").update(normaliseCommand(command), "utf8").digest("hex");
}

export function routeCacheKey(tenantId: string, registryGeneration: string, digest: string): string {
  return `route:${tenantId}:${registryGeneration}:${digest}`;
}

/** Null for what is not a cached route. */
export function parseCachedRoute(raw: string | null): CachedRoute | null {
  if (raw === null) return null;
  try {
    return v.parse(CachedRoute, JSON.parse(raw));
  } catch {
    return null;
  }
}

/**
 * Forgets only what cannot change the meaning: the form of composed letters, runs of white space, and the capital that begins a sentence.
 * Other capitals stay, since "IT report" is not "it report"; compatibility forms stay too, since NFKC would read "x²" as "x2".
 */
export function normaliseCommand(command: string): string {
  const spaced = command.normalize("NFC").replace(/\s+/gu, " ").trim();
  return spaced.replace(/^\p{Lu}(?=\p{Ll}+(?: |$))/u, (letter) => letter.toLowerCase());
}
