/** Who may ask for a person's data, or for their end: that person, with any live key of theirs, or a key with `privacy:admin`. */
import type { Caller } from "../access/caller.ts";
import { Refusal } from "../errors.ts";
import type { UserId } from "../ids.ts";

export const GUARD = "Needs a live key of the user themself, or one with the scope `privacy:admin`.";

/** @throws Refusal FORBIDDEN_SCOPE */
export function mayActFor(caller: Caller, userId: UserId): void {
  if (caller.environment === "live" && (caller.userId === userId || caller.scopes.includes("privacy:admin"))) return;
  throw new Refusal("FORBIDDEN_SCOPE", { message: GUARD, details: { required_scope: "privacy:admin" } });
}
