/** The last step of a function that took something away from keys: when the caches cannot be told, its caller must not read that it holds. */
import type { Redis } from "ioredis";
import { Refusal } from "../errors.ts";
import type { TenantId } from "../ids.ts";
import { tellAccessChanged } from "./key-cache.ts";

/** `done` begins the message: "The key is revoked". */
export async function tellCaches(redis: Redis, tenantId: TenantId, generation: string, done: string): Promise<void> {
  await tellAccessChanged(redis, tenantId, generation).catch((cause: unknown) => {
    throw new Refusal("SERVICE_UNAVAILABLE", {
      message: `${done}, but a cache could not be told and may not know of it for up to five minutes. Look again, or send the call again, to be sure.`,
      retryAfterSec: 1,
      cause,
    });
  });
}
