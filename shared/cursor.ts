/** Opaque, signed page cursors: bound to the tenant, the list and its filters, so that none can be forged or carried elsewhere. */
import { createHmac, timingSafeEqual } from "node:crypto";
import { Refusal } from "./errors.ts";

export interface Cursors {
  seal(scope: readonly (string | undefined)[], position: string): string;
  /** The position; throws INVALID_INPUT when the cursor was not made for this scope. */
  open(scope: readonly (string | undefined)[], cursor: string): string;
}

const MAC_BYTES = 12;

export function openCursors(secret: string): Cursors {
  const mac = (scope: readonly (string | undefined)[], position: string) =>
    createHmac("sha256", `aau cursor v1\0${secret}`)
      .update(JSON.stringify([scope, position]))
      .digest()
      .subarray(0, MAC_BYTES);
  return {
    seal: (scope, position) => Buffer.concat([mac(scope, position), Buffer.from(position, "utf8")]).toString("base64url"),
    open(scope, cursor) {
      const bytes = Buffer.from(cursor.slice(0, 512), "base64url");
      const position = bytes.subarray(MAC_BYTES).toString("utf8");
      const given = bytes.subarray(0, MAC_BYTES);
      const expected = mac(scope, position);
      // Decoding ignores what is not base64url, so one position would have many texts.
      const isCanonical = bytes.toString("base64url") === cursor;
      if (!isCanonical || given.length !== MAC_BYTES || !timingSafeEqual(given, expected))
        throw new Refusal("INVALID_INPUT", { message: "The cursor is not valid for this list; start from the first page." });
      return position;
    },
  };
}
