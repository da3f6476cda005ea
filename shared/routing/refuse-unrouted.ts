/** What a caller is told when no plugin was chosen. */
import { Refusal } from "../errors.ts";
import type { Candidate } from "./decide.ts";
import type { Route } from "./route-command.ts";

const shown = (candidates: readonly Candidate[]) => candidates.slice(0, 3).map(({ plugin, probability }) => ({ plugin, confidence: Math.round(probability * 1000) / 1000 }));

/** 404 for a plugin that does not exist, 422 with the closest three for a command that fits none, or several. */
export function refuseUnrouted(route: Exclude<Route, { kind: "plugin" }>): Refusal {
  if (route.kind === "unknown_plugin") return new Refusal("NOT_FOUND", { message: `There is no plugin named ${route.name}.` });
  if (route.kind === "none")
    return new Refusal("NO_MATCHING_PLUGIN", {
      message: "No plugin fits this command. Name one in `plugin`, or say more of what you want done.",
      details: { closest: shown(route.closest) },
    });
  return new Refusal("NO_MATCHING_PLUGIN", {
    message: "It is not clear which plugin this command is for. Name one of the candidates in `plugin`, or say more of what you want done.",
    details: { candidates: shown(route.candidates) },
  });
}
