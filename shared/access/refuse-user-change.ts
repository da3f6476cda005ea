import { Refusal } from "../errors.ts";
import type { NotDone } from "./users.ts";

/** What the caller is told when a change of users was not made. */
export function refuseUserChange(not: NotDone): Refusal {
  switch (not.why) {
    case "over":
      return new Refusal("AUTH_INVALID");
    case "taken":
      return new Refusal("CONFLICT", { message: "A user with this address is there already." });
    case "last_owner":
      return new Refusal("CONFLICT", { message: "This is the last owner; make another user an owner first." });
    case "own_role":
      return new Refusal("FORBIDDEN_SCOPE", { message: "Nobody can give themselves a role that allows more." });
    case "owners_only":
      return new Refusal("FORBIDDEN_SCOPE", { message: "Only an owner can make, change or remove an owner." });
    case "beyond":
      return new Refusal("FORBIDDEN_SCOPE", {
        message: `A key can only give roles whose scopes it has; for ${not.role} it lacks ${not.excess.join(", ")}.`,
        details: { missing_scopes: not.excess },
      });
  }
}
