/** From a command to a plugin (DESIGN.md, section 7): the caller's choice, the cache, embeddings or keywords, the model where those leave a doubt. */
import type { Redis } from "ioredis";
import type { TenantId } from "../ids.ts";
import type { Upstream } from "../models/upstream.ts";
import { tryRedis } from "../redis/availability.ts";
import type { CatalogueEntry } from "../registry/catalogue.ts";
import type { Telemetry } from "../telemetry/domain-events.ts";
import { chooseByModel, chooserModel, NO_CANDIDATE } from "./choose-by-model.ts";
import { type Candidate, type DecisionLines, thresholdsFor } from "./decide.ts";
import { type CachedRoute, commandDigest, parseCachedRoute, routeCacheKey } from "./route-cache.ts";
import { findVisible, type ScoredText, type Scorer, scoreTexts } from "./score-texts.ts";

const ROUTE_CACHE_SEC = 300;

/** What the choice rests on; `dry_run` shows it. */
export interface RouteBasis {
  /** Best first; empty for a plugin that the caller named. */
  readonly candidates: readonly Candidate[];
  readonly lines: DecisionLines;
  /** The whole command's own vector, to be stored with the task; null where nothing was embedded: named, cached, by keywords. */
  readonly embedding: ScoredText["embedding"];
}

/** How a plugin was chosen; `clarified` is added when the caller answers a question. */
export type ChosenBy = "explicit" | "cache" | "embedding" | "keyword" | "llm_fallback";

export type Route =
  | (RouteBasis & { readonly kind: "plugin"; readonly entry: CatalogueEntry; readonly method: ChosenBy; readonly confidence: number })
  /** Several may fit, and only the caller can say which: at most three `candidates`. `parts`: the likeliest plugin for each part of a command that asks for several things. */
  | (RouteBasis & { readonly kind: "question"; readonly question: string; readonly method: "embedding" | "keyword"; readonly parts?: readonly string[] })
  | (RouteBasis & { readonly kind: "none" })
  | { readonly kind: "unknown_plugin"; readonly name: string };

export interface Router extends Scorer {
  redis: Redis;
  upstream: Upstream;
  telemetry: Pick<Telemetry, "degraded" | "modelChoseRoute">;
}

export interface RouteRequest {
  tenantId: TenantId;
  command: string;
  plugin?: string;
  /** What the admission call found under the command's digest. */
  cachedRoute: string | null;
  /** The command's own entry of `scoreTexts`, where the planner has asked already. */
  scored?: ScoredText;
  /** A dry run leaves no trace, in the cache neither. */
  isDryRun?: boolean;
}

export async function routeCommand(router: Router, request: RouteRequest): Promise<Route> {
  const lines = thresholdsFor(router.embedder.model, router.thresholds);
  if (request.plugin !== undefined) {
    const entry = findVisible(router, request.plugin);
    return entry ? { kind: "plugin", entry, method: "explicit", confidence: 1, candidates: [], lines, embedding: null } : { kind: "unknown_plugin", name: request.plugin };
  }
  return readCache(router, request.cachedRoute, lines) ?? decideRoute(router, request);
}

/** The route that the cache holds, if it is still one. */
export function readCache(router: Router, raw: string | null, lines: DecisionLines): Route | null {
  const cached = parseCachedRoute(raw);
  // A route that other models chose is not the answer of these.
  if (cached?.m !== router.embedder.model || (cached.l !== null && cached.l !== chooserModel(router.upstream))) return null;
  const basis = { candidates: cached.k.filter(({ plugin }) => findVisible(router, plugin)), lines, embedding: null };
  if (cached.p === "") return { kind: "none", ...basis };
  const entry = findVisible(router, cached.p);
  return entry ? { kind: "plugin", entry, method: "cache", confidence: cached.c, ...basis } : null;
}

async function decideRoute(router: Router, request: RouteRequest): Promise<Route> {
  const [scored] = request.scored ? [request.scored] : await scoreTexts(router, [request.command]);
  if (!scored) throw new Error("a text was not scored");
  const { decision, lines, embedding } = scored;
  const { candidates } = decision;
  const basis = { candidates, lines, embedding };
  const remember = (plugin: string, confidence: number, chooser: string | null) =>
    // Keywords are a makeshift: as soon as embeddings are back, they decide.
    embedding && !request.isDryRun ? writeCache(router, request, { p: plugin, c: confidence, m: embedding.model, l: chooser, k: [...candidates] }) : undefined;

  if (decision.kind === "none") return { kind: "none", ...basis };
  if (decision.kind === "direct") {
    const entry = findVisible(router, decision.plugin);
    if (!entry) return { kind: "none", ...basis };
    await remember(decision.plugin, decision.confidence, null);
    return { kind: "plugin", entry, method: decision.method, confidence: decision.confidence, ...basis };
  }

  // What nobody would choose is no choice: it would only tempt a model, and lengthen the question.
  const plausible = candidates.filter(({ probability }) => probability >= lines.confidenceMin);
  const offered = plausible.flatMap(({ plugin }) => findVisible(router, plugin) ?? []);
  const choice = await chooseByModel(router, request.command, offered);
  if (choice === NO_CANDIDATE) {
    await remember("", 0, chooserModel(router.upstream));
    return { kind: "none", ...basis };
  }
  const chosen = offered.find(({ name }) => name === choice);
  if (chosen) {
    const confidence = candidates.find(({ plugin }) => plugin === choice)?.probability ?? 0;
    await remember(chosen.name, confidence, chooserModel(router.upstream));
    return { kind: "plugin", entry: chosen, method: "llm_fallback", confidence, ...basis };
  }
  const asked = plausible.slice(0, ASKED);
  return { kind: "question", method: decision.method, question: questionOf(asked), ...basis, candidates: asked };
}

/** More than three would be a list and no question. */
const ASKED = 3;

function questionOf(candidates: readonly Candidate[]): string {
  const names = candidates.map(({ plugin }) => plugin);
  if (names.length === 1) return `Is this for ${names[0]}? Answer with its name, or cancel the task and say more of what you want done.`;
  return `Which plugin is this for: ${names.slice(0, -1).join(", ")} or ${names.at(-1)}?`;
}

async function writeCache({ redis, catalogue }: Router, { tenantId, command }: RouteRequest, route: CachedRoute): Promise<void> {
  const key = routeCacheKey(tenantId, catalogue.generation, commandDigest(command));
  await tryRedis(redis, (r) => r.set(key, JSON.stringify(route), "EX", ROUTE_CACHE_SEC));
}
