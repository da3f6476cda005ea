import type { Redis } from "ioredis";

/** The policy by which this Redis throws away keys that were to stay, such as streams; null when it has none, or cannot be asked. */
export async function evictionPolicy(redis: Redis): Promise<string | null> {
  // Hosted servers answer INFO where they refuse CONFIG.
  const memory = await redis.info("memory").catch(() => "");
  const [, policy = ""] = /^maxmemory_policy:(\S+)/m.exec(memory) ?? [];
  return policy.startsWith("allkeys") ? policy : null;
}

export const evicts = (policy: string): Error => new Error(`Redis at REDIS_URL evicts keys (maxmemory-policy ${policy}), and streams with them; set noeviction or volatile-ttl.`);
