/**
 * From a command to what will run (DESIGN.md, section 7): one plugin, several steps, or a question. The command and its parts are scored in
 * one embedding call; only parts that go to different plugins beyond doubt become steps of their own.
 */
import { type Candidate, thresholdsFor } from "../routing/decide.ts";
import { type ChosenBy, type Route, type RouteBasis, type RouteRequest, type Router, readCache, routeCommand } from "../routing/route-command.ts";
import { findVisible, scoreTexts } from "../routing/score-texts.ts";
import { type DraftStep, type RatedPart, rateParts, toSteps } from "./assign-parts.ts";
import { proposePlan } from "./propose-plan.ts";
import { splitIntents } from "./split-intents.ts";

export type CommandPlan =
  | Route
  /** `candidates` are those of the parts: the plugins of the steps, and what came near. */
  | (RouteBasis & { readonly kind: "steps"; readonly steps: readonly DraftStep[]; readonly method: ChosenBy; readonly confidence: number });

export async function planCommand(router: Router, request: RouteRequest): Promise<CommandPlan> {
  const split = splitIntents(request.command);
  if (request.plugin !== undefined || split.intents.length === 1) return routeCommand(router, request);
  // Only commands for one plugin are in the cache.
  const cached = readCache(router, request.cachedRoute, thresholdsFor(router.embedder.model, router.thresholds));
  if (cached) return cached;
  const [whole, ...parts] = await scoreTexts(router, [request.command, ...split.intents.map(({ text }) => text)]);
  if (!whole) throw new Error("a text was not scored");

  const rated = rateParts(parts);
  const plugins = rated.map(({ plugin }) => plugin);
  // All for one, or not one part that is surely somebody's: the command as a whole decides.
  if (new Set(plugins).size === 1) return routeCommand(router, { ...request, cachedRoute: null, scored: whole });

  const candidates = bestOf(rated);
  const basis = { candidates, lines: whole.lines, embedding: whole.embedding };
  const isSettled = plugins.every((plugin) => plugin !== null);
  const assigned = isSettled ? plugins : await proposePlan(router, rated);
  if (!assigned) {
    const parts = likeliest(rated);
    return {
      kind: "question",
      method: whole.decision.method,
      question: questionOf(candidates, parts),
      ...basis,
      candidates: candidates.slice(0, ASKED),
      ...(parts ? { parts } : {}),
    };
  }
  const steps = toSteps(split, assigned);
  const method = isSettled ? whole.decision.method : "llm_fallback";
  const confidence = Math.min(...steps.map(({ plugin }) => candidates.find((candidate) => candidate.plugin === plugin)?.probability ?? 0));
  const [first, ...more] = steps;
  const entry = first && more.length === 0 ? findVisible(router, first.plugin) : undefined;
  return entry ? { kind: "plugin", entry, method, confidence, ...basis } : { kind: "steps", steps, method, confidence, ...basis };
}

const CONSIDERED = 5;
const ASKED = 3;

/** Each plugin once, as well as it does for any part; best first. */
function bestOf(parts: readonly RatedPart[]): Candidate[] {
  const best = new Map<string, Candidate>();
  for (const candidate of parts.flatMap(({ candidates }) => candidates)) {
    if (candidate.probability > (best.get(candidate.plugin)?.probability ?? -1)) best.set(candidate.plugin, candidate);
  }
  return [...best.values()].sort((a, b) => b.probability - a.probability).slice(0, CONSIDERED);
}

/** The best plugin for each part; a part that is nobody's goes with its neighbour. Null when that is one plugin for all. */
function likeliest(parts: readonly RatedPart[]): string[] | null {
  const own = parts.map(({ plugin, candidates }) => plugin ?? candidates[0]?.plugin ?? null);
  const filled = own.map((plugin, i) => plugin ?? own.slice(0, i).findLast((before) => before !== null) ?? own.find((after) => after !== null) ?? "");
  return new Set(filled).size > 1 ? filled : null;
}

function questionOf(candidates: readonly Candidate[], parts: readonly string[] | null): string {
  const names = candidates.slice(0, ASKED).map(({ plugin }) => plugin);
  const one = names.length > 1 ? `${names.slice(0, -1).join(", ")} or ${names.at(-1)}` : names.join("");
  if (!parts) return `This seems to ask for several things. Which plugin should do all of it: ${one}?`;
  return `This seems to ask for several things. Should ${[...new Set(parts)].join(" and ")} each do a part of it, or one plugin all: ${one}?`;
}
