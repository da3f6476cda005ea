/** From a command to a plugin (DESIGN.md, section 7): the caller's choice, the cache, embeddings, or keywords when those are down. */
import type { Redis } from "ioredis";
import type { TenantId } from "../ids.ts";
import type { Embedder } from "../models/embedder.ts";
import { tryRedis } from "../redis/availability.ts";
import type { Catalogue, CatalogueEntry } from "../registry/catalogue.ts";
import { BACKGROUND_SENTENCES } from "./background.ts";
import { buildCapabilityIndex, type CapabilityIndex, type CommandScores, scoreCommand } from "./capability-index.ts";
import { type Candidate, decide, thresholdsFor } from "./decide.ts";
import { decideByKeyword } from "./keyword.ts";
import { type CachedRoute, commandDigest, parseCachedRoute, routeCacheKey } from "./route-cache.ts";

const ROUTE_CACHE_SEC = 300;
const EMBED_TIMEOUT_MS = 5_000;

export type Route =
  | { kind: "plugin"; entry: CatalogueEntry; method: "explicit" | "cache" | "embedding" | "keyword"; confidence: number }
  | { kind: "unsure"; candidates: readonly Candidate[] }
  | { kind: "none"; closest: readonly Candidate[] }
  | { kind: "unknown_plugin"; name: string };

export interface RouteRequest {
  tenantId: TenantId;
  command: string;
  plugin?: string;
  /** What the admission call found under the command's digest. */
  cachedRoute: string | null;
}

export interface Router {
  catalogue: Catalogue;
  embedder: Embedder;
  redis: Redis;
  thresholds: { chainThreshold?: number; confidenceMin?: number };
}

export async function routeCommand({ catalogue, embedder, redis, thresholds }: Router, request: RouteRequest): Promise<Route> {
  if (request.plugin !== undefined) {
    const entry = catalogue.plugins.get(request.plugin);
    return entry ? { kind: "plugin", entry, method: "explicit", confidence: 1 } : { kind: "unknown_plugin", name: request.plugin };
  }
  const cached = parseCachedRoute(request.cachedRoute);
  // A route that another embedding model chose is not this one's answer.
  const cachedEntry = cached?.m === embedder.model ? catalogue.plugins.get(cached.p) : undefined;
  if (cached && cachedEntry) return { kind: "plugin", entry: cachedEntry, method: "cache", confidence: cached.c };

  const scores = await scoreByEmbedding(catalogue, embedder, request.command);
  const decision = scores
    ? decide(scores, thresholdsFor(embedder.model, thresholds))
    : decideByKeyword(
        request.command,
        [...catalogue.plugins.values()].map((p) => ({ plugin: p.name, texts: p.manifest.capabilities })),
      );
  if (decision.kind === "unsure") return { kind: "unsure", candidates: decision.candidates };
  if (decision.kind === "none") return { kind: "none", closest: decision.closest };
  const entry = catalogue.plugins.get(decision.plugin);
  if (!entry) return { kind: "none", closest: decision.candidates };
  if (decision.method === "embedding") {
    const key = routeCacheKey(request.tenantId, catalogue.generation, commandDigest(request.command));
    const route: CachedRoute = { p: decision.plugin, c: decision.confidence, m: embedder.model };
    await tryRedis(redis, (r) => r.set(key, JSON.stringify(route), "EX", ROUTE_CACHE_SEC));
  }
  return { kind: "plugin", entry, method: decision.method, confidence: decision.confidence };
}

/** Null when the embedding service cannot answer: then keywords decide. */
async function scoreByEmbedding(catalogue: Catalogue, embedder: Embedder, command: string): Promise<CommandScores | null> {
  try {
    const [[vector], index] = await Promise.all([embedder.embed([command], AbortSignal.timeout(EMBED_TIMEOUT_MS)), indexOf(catalogue, embedder)]);
    return vector ? scoreCommand(index, vector) : null;
  } catch {
    return null;
  }
}

const indices = new WeakMap<Catalogue, Map<string, Promise<CapabilityIndex>>>();

/** Built once per catalogue and model. Plugins whose vectors are of another model are embedded here, until `plugin-probe` has stored them. */
function indexOf(catalogue: Catalogue, embedder: Embedder): Promise<CapabilityIndex> {
  const ofCatalogue = indices.get(catalogue) ?? new Map<string, Promise<CapabilityIndex>>();
  indices.set(catalogue, ofCatalogue);
  let index = ofCatalogue.get(embedder.model);
  if (!index) {
    index = buildIndex(catalogue, embedder);
    ofCatalogue.set(embedder.model, index);
    index.catch(() => ofCatalogue.delete(embedder.model));
  }
  return index;
}

async function buildIndex(catalogue: Catalogue, embedder: Embedder): Promise<CapabilityIndex> {
  const plugins = await Promise.all(
    [...catalogue.plugins.values()].map(async (entry) => {
      const texts = entry.manifest.capabilities;
      return { plugin: entry.name, texts, vectors: entry.vectors.get(embedder.model) ?? (await embedder.embed(texts)) };
    }),
  );
  return buildCapabilityIndex(embedder.model, plugins, await backgroundOf(embedder));
}

const backgrounds = new WeakMap<Embedder, Promise<Float32Array[]>>();

/** The background never changes for a model: it is embedded once per process, not once per catalogue. */
function backgroundOf(embedder: Embedder): Promise<Float32Array[]> {
  let vectors = backgrounds.get(embedder);
  if (!vectors) {
    vectors = embedder.embed(BACKGROUND_SENTENCES);
    backgrounds.set(embedder, vectors);
    vectors.catch(() => backgrounds.delete(embedder));
  }
  return vectors;
}
