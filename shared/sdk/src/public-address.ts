/** Which addresses belong to the open internet. */
import { isIP } from "node:net";
import ipaddr from "ipaddr.js";

/** The only part of IPv6 that is handed out for use in the internet: ipaddr.js calls all that no registry names `unicast`, `::7f00:1` among it. */
const GLOBAL_UNICAST = ipaddr.IPv6.parseCIDR("2000::/3");

/**
 * True when whoever connects to this address leaves this network: not loopback, private, link-local, multicast, reserved or carrier's, and no
 * IPv6 that carries an IPv4 address inside (mapped, NAT64, 6to4, Teredo), whatever that one is.
 *
 * @param text an address as a resolver or a socket gives it. What only looks like one is not public.
 */
export function isPublicAddress(text: string): boolean {
  if (isIP(text) === 0 || text.includes("%")) return false;
  const address = ipaddr.parse(text);
  if (address.range() !== "unicast") return false;
  return address instanceof ipaddr.IPv4 || address.match(GLOBAL_UNICAST);
}
