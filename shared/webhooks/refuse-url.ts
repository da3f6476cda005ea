import type { Egress } from "../egress/outbound-post.ts";
import { Refusal } from "../errors.ts";

/** The URL as it is stored. @throws Refusal INVALID_INPUT when it may not be called, as far as the URL itself tells. */
export function refuseUrl(egress: Pick<Egress, "read">, text: string): string {
  const read = egress.read(text);
  if ("problem" in read) throw new Refusal("INVALID_INPUT", { message: `url ${read.problem}.`, details: { issues: [{ path: "url", message: read.problem }] } });
  return read.url.href;
}
