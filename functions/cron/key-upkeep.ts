import { purgeEndedKeys } from "../../shared/access/api-keys.ts";
import { retellAccessChanges } from "../../shared/access/key-cache.ts";
import { cron } from "../../shared/host/declare.ts";

/**
 * Tells Redis once more what keys lost lately, for those who were stopped between their COMMIT and telling it, and for a Redis that came back
 * older than it was. Deletes keys that ended 90 days ago.
 */
export default cron({
  name: "key-upkeep",
  summary: "Tell the key cache again of what changed lately; delete keys 90 days after their end.",
  schedule: "5,35 * * * * *",
  needs: ["platformDb", "redis"],
  scale: { min: 0, max: 1, concurrency: 1 },

  async run({ platformDb, redis, signal }) {
    await retellAccessChanges(redis, platformDb, signal);
    await purgeEndedKeys(platformDb, signal);
  },
});
