/**
 * Connections that leave this network or are not made. A name is looked up once, all of its addresses are judged, and the socket is opened to
 * those very addresses: there is no second look-up that could say something else. Where one of them is not public, none is used. Proxies that
 * the environment names are not asked.
 *
 * Own code: request-filtering-agent and ssrf-req-filter are agents for node:http and do not fit undici. Of the 138 hosts of the battery in
 * test/webhooks both let through five, which have one cause: ipaddr.js, which they ask as we do, calls `::7f00:1` unicast (public-address.ts).
 */
import { type LookupAddress, type LookupOptions, lookup as lookupDns } from "node:dns";
import { isIP, type Socket } from "node:net";
import { Agent, buildConnector } from "undici";
import { EgressRefused } from "./egress-refused.ts";
import { type EgressPolicy, hostOf, isOuterHost } from "./outbound-url.ts";
import { isPublicAddress } from "./public-address.ts";

export type Lookup = (hostname: string, options: LookupOptions & { all: true }, done: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void) => void;

export interface GuardOptions extends EgressPolicy {
  connectTimeoutMs: number;
  headersTimeoutMs?: number;
  bodyTimeoutMs?: number;
  /** A resolver of one's own; the system's by default. */
  lookup?: Lookup;
}

type Looked = (error: NodeJS.ErrnoException | null, address: string | LookupAddress[], family?: number) => void;

/** A look-up, as net.connect calls it, that fails unless every address of the name is public. */
export function guardedLookup(resolve: Lookup) {
  return (hostname: string, options: LookupOptions, done: Looked): void => {
    resolve(hostname, { ...options, all: true }, (error, addresses) => {
      if (error) return done(error, []);
      if (addresses.length === 0 || !addresses.every(({ address }) => isPublicAddress(address))) return done(new EgressRefused("the name has an address that is not public"), []);
      const [first] = addresses;
      if (options.all || !first) done(null, addresses);
      else done(null, first.address, first.family);
    });
  };
}

/** Opens connections for requests whose address somebody else named. */
export function guardedAgent({ allowPrivate, connectTimeoutMs, headersTimeoutMs, bodyTimeoutMs, lookup = lookupDns }: GuardOptions): Agent {
  // One request a connection: an old one may be closed by the receiver in the moment in which it is used again.
  const settings = { pipelining: 0, headersTimeout: headersTimeoutMs, bodyTimeout: bodyTimeoutMs };
  if (allowPrivate) return new Agent({ ...settings, connect: { timeout: connectTimeoutMs } });
  const connect = buildConnector({ timeout: connectTimeoutMs, lookup: guardedLookup(lookup) });
  return new Agent({
    ...settings,
    connect(options, callback) {
      const host = hostOf(options);
      // An address that is written out is never looked up.
      if (!isOuterHost(host)) return callback(new EgressRefused("the host is not public"), null);
      connect(options, (error, socket) => {
        if (error) callback(error, null);
        else if (isElsewhere(socket)) {
          socket.destroy();
          callback(new EgressRefused("the connection led to an address that is not public"), null);
        } else callback(null, socket);
      });
    },
  });
}

const isElsewhere = ({ remoteAddress }: Socket) => remoteAddress === undefined || isIP(remoteAddress) === 0 || !isPublicAddress(remoteAddress);
