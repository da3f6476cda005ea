import type { Opener, Resources } from "../resources.ts";
import { REDIS_VARIABLES, redisConnection } from "./connections.ts";

export const opener: Opener<Resources["redis"]> = { variables: REDIS_VARIABLES, open: redisConnection };
