/**
 * Reads a URL that somebody else wrote, before it is stored or called. What it says here is only the first look: names are looked up, and their
 * addresses judged, when a connection is made (guarded-connect.ts).
 */
import { isIP } from "node:net";
import { isPublicAddress } from "./public-address.ts";

export interface EgressPolicy {
  /** For installations whose receivers stand in the same network, and for tests: any address and port, and plain http. */
  allowPrivate: boolean;
}

const MAX_LENGTH = 2048;
const PORTS = new Set(["", "8443"]);
/** Names that resolve inside of a network only, or in none: RFC 6761, 6762, 7686, 8375, ICANN's list of collisions, and Kubernetes' own. */
const INNER_NAME = /(^|\.)(localhost|local|localdomain|internal|intranet|private|corp|home|lan|svc|default|arpa|onion|invalid|test|example)$/;

export type OutboundUrl = { url: URL } | { problem: string };

/** @returns the URL, or what is wrong with it as the end of a sentence that begins with its name: `must be an https URL`. */
export function readOutboundUrl(text: string, { allowPrivate }: EgressPolicy): OutboundUrl {
  if (text.length > MAX_LENGTH) return { problem: `must have at most ${MAX_LENGTH} characters` };
  // Parsers disagree on these, and new URL() passes over some of them.
  if (/[\s\p{Cc}\p{Cf}\\]/u.test(text)) return { problem: "must not contain spaces, control characters or backslashes" };
  if (!/^https?:\/\/[^/?#@]+([/?#]|$)/i.test(text) || !URL.canParse(text)) return { problem: "must be an absolute https URL without a user" };
  const url = new URL(text);
  if (url.protocol !== "https:" && !allowPrivate) return { problem: "must be an https URL" };
  if (url.username || url.password) return { problem: "must not contain a user or a password" };
  if (url.hash || text.includes("#")) return { problem: "must not contain a fragment" };
  if (allowPrivate) return { url };
  if (!PORTS.has(url.port)) return { problem: "must use the port 443 or 8443" };
  return isOuterHost(hostOf(url)) ? { url } : { problem: "must lead to a public address" };
}

/** The host without the brackets of IPv6 and without the dot that ends a full name. */
export function hostOf({ hostname }: Pick<URL, "hostname">): string {
  return hostname.replace(/^\[|\]$/g, "").replace(/\.+$/, "");
}

/** A public address, or a name that may have one. */
export function isOuterHost(host: string): boolean {
  if (isIP(host) !== 0) return isPublicAddress(host);
  return host.includes(".") && !INNER_NAME.test(host);
}
