import * as v from "valibot";
import { event } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";
import { eraseUser } from "../../shared/privacy/erase-user.ts";
import { timeLimit } from "../../shared/sdk/src/time-limit.ts";

/** Knative breaks a request off after 600 seconds; before that the work is given back between two stores. */
const RUN_MS = 540_000;

/** Forgets a user, store by store, and certifies it once nothing is found any more. Any number of wake-ups for one erasure are one. */
export default event({
  name: "user-erase",
  summary: "Erase what is known of a user, search for leftovers, certify.",
  event: "io.aau.erasure.requested",
  stream: "stream:erasure",
  data: v.object({ erasure_id: idParam("erasure") }),
  needs: ["platformDb", "redis", "signals", "storage", "telemetry"],
  scale: { min: 0, max: 3, concurrency: 4 },
  timeoutSec: 600,

  handle({ data, signal, platformDb, ...parts }) {
    return eraseUser({ db: platformDb, ...parts }, data.erasure_id, AbortSignal.any([signal, timeLimit(RUN_MS)]));
  },
});
