import { openRing } from "../../redis/streams.ts";
import type { Opener, Resources } from "../resources.ts";
import { REDIS_VARIABLES, redisConnection } from "./connections.ts";

export const opener: Opener<Resources["ring"]> = { variables: REDIS_VARIABLES, open: async (opening) => openRing(await redisConnection(opening)) };
