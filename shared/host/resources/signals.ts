import { openSignals } from "../../redis/signals.ts";
import type { Opener, Resources } from "../resources.ts";
import { REDIS_VARIABLES, redisConnection, subscriberConnection } from "./connections.ts";

export const opener: Opener<Resources["signals"]> = {
  variables: REDIS_VARIABLES,
  open: (opening) => opening.share("signals", async () => openSignals(await redisConnection(opening), await subscriberConnection(opening))),
};
