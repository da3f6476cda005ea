/** The name under which a routing decision is cached. It changes with the catalogue and the model, and never shows the command. */
import { createHash } from "node:crypto";

/** `route:{tenant}:{generation}:{sha256}`. The hash covers all four parts, so that no choice of ids can make two keys meet. */
export function routeCacheKey(tenantId: string, registryGeneration: number | string, embeddingModel: string, command: string): string {
  const whole = JSON.stringify([tenantId, String(registryGeneration), embeddingModel, normaliseCommand(command)]);
  return `route:${tenantId}:${registryGeneration}:${createHash("sha256").update(whole, "utf8").digest("hex")}`;
}

/**
 * Forgets only what cannot change the meaning: the form of composed letters, runs of white space, and the capital that begins a sentence.
 * Other capitals stay, since "IT report" is not "it report"; compatibility forms stay too, since NFKC would read "x²" as "x2".
 */
export function normaliseCommand(command: string): string {
  const spaced = command.normalize("NFC").replace(/\s+/gu, " ").trim();
  return spaced.replace(/^\p{Lu}(?=\p{Ll}+(?: |$))/u, (letter) => letter.toLowerCase());
}
