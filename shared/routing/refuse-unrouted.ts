/** What a caller is told when no plugin was chosen. */
import { Refusal } from "../errors.ts";
import type { Candidate } from "./decide.ts";
import type { Route } from "./route-command.ts";

const shown = (candidates: readonly Candidate[]) => candidates.slice(0, 3).map(({ plugin, probability }) => ({ plugin, confidence: Math.round(probability * 1000) / 1000 }));

/** 404 for a plugin that does not exist, 422 with the closest three for a command that fits none. */
export function refuseUnrouted(route: Extract<Route, { kind: "none" | "unknown_plugin" }>): Refusal {
  if (route.kind === "unknown_plugin") return new Refusal("NOT_FOUND", { message: `There is no plugin named ${route.name}.` });
  return new Refusal("NO_MATCHING_PLUGIN", {
    message: "No plugin fits this command. Name one in `plugin`, or say more of what you want done.",
    details: { closest: shown(route.candidates) },
  });
}
