/** Money is integer micro-USD inside and a string with six decimals outside. */
import * as v from "valibot";

/** `1.25` or `"1.25"` as micro-USD. At most 1,000,000 USD and six decimals. */
export const UsdAmount = v.pipe(
  v.union([v.number(), v.string()], "must be an amount in USD, such as 0.25"),
  v.metadata({ examples: ["0.25"] }),
  v.transform((amount) => (typeof amount === "number" ? amount.toFixed(6).replace(/\.?0+$/, "") : amount)),
  v.regex(/^\d{1,7}(\.\d{1,6})?$/, "must be an amount in USD with at most six decimals, such as 0.25"),
  v.transform((text) => {
    const [whole = "0", fraction = ""] = text.split(".");
    return BigInt(whole) * 1_000_000n + BigInt(fraction.padEnd(6, "0"));
  }),
);

/** `0.012345` for 12345 micro-USD. */
export function formatUsd(microUsd: bigint): string {
  const size = microUsd < 0n ? -microUsd : microUsd;
  return `${microUsd < 0n ? "-" : ""}${size / 1_000_000n}.${String(size % 1_000_000n).padStart(6, "0")}`;
}
