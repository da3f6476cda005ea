/**
 * What a plugin may do while it works on one task: a compact signed text, one audience each, made when a step starts and
 * dead with its lease. Compact JSON and HMAC rather than JWT, so that there is no algorithm to choose and nothing to confuse.
 */
import { createHash, createHmac, timingSafeEqual } from "node:crypto";
import * as v from "valibot";
import { PluginScope } from "../sdk/src/manifest.ts";

const Uuid = v.pipe(v.string(), v.uuid());
export const CapabilityAudience = v.picklist(["llm", "scoped", "chain"]);
export type CapabilityAudience = v.InferOutput<typeof CapabilityAudience>;

export const Capability = v.strictObject({
  v: v.literal(1),
  aud: CapabilityAudience,
  tenant: Uuid,
  task: Uuid,
  attempt: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  step: v.pipe(v.string(), v.maxLength(64)),
  plugin: v.pipe(v.string(), v.maxLength(40)),
  version: v.pipe(v.string(), v.maxLength(64)),
  scopes: v.array(PluginScope),
  /** Tokens after which the gateway warns; the manifest's budget. */
  token_budget: v.number(),
  /** Set for the work of a test key: the gateway answers from the offline model, whatever provider there is. */
  offline: v.optional(v.literal(true)),
  /** The lease that this execution holds: every write through a gateway carries it in its WHERE. */
  lease: Uuid,
  /** Milliseconds since the epoch. */
  exp: v.number(),
});
export type Capability = v.InferOutput<typeof Capability>;

export interface CapabilitySigner {
  mint(claims: Omit<Capability, "v">): string;
  /** The claims of a genuine token for this audience that has not expired by more than `MAX_CLOCK_SKEW_MS`, else null. */
  verify(token: string, audience: CapabilityAudience, nowMs: number): Capability | null;
}

const MAX_TOKEN_LENGTH = 4096;
/**
 * What the clock of the one who minted may be behind that of the one who checks. It may be long: what a capability opens, it opens under its
 * lease, which ends on the database's clock; the expiry is the second bolt.
 */
export const MAX_CLOCK_SKEW_MS = 15 * 60_000;

/** `secret` is the platform's CAPABILITY_KEY, at least 32 characters. */
export function capabilitySigner(secret: string): CapabilitySigner {
  const key = createHash("sha256").update("aau capability v1\0").update(secret).digest();
  const sign = (payload: string) => createHmac("sha256", key).update(payload).digest();
  return {
    mint(claims) {
      const payload = Buffer.from(JSON.stringify({ v: 1, ...claims })).toString("base64url");
      return `aau1.${payload}.${sign(payload).toString("base64url")}`;
    },
    verify(token, audience, nowMs) {
      if (token.length > MAX_TOKEN_LENGTH) return null;
      const [head, payload, signature, ...rest] = token.split(".");
      if (head !== "aau1" || !payload || !signature || rest.length > 0) return null;
      const given = Buffer.from(signature, "base64url");
      const expected = sign(payload);
      if (given.length !== expected.length || !timingSafeEqual(given, expected)) return null;
      let claims: unknown;
      try {
        claims = JSON.parse(Buffer.from(payload, "base64url").toString("utf8"));
      } catch {
        return null;
      }
      const parsed = v.safeParse(Capability, claims);
      if (!parsed.success || parsed.output.aud !== audience || parsed.output.exp + MAX_CLOCK_SKEW_MS <= nowMs) return null;
      return parsed.output;
    },
  };
}
