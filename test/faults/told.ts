/** Waits until nobody has anything left to tell the receivers that are well. */
import { setTimeout as delay } from "node:timers/promises";
import type { FaultPlatform } from "./platform.ts";
import type { RoundTools } from "./rounds.ts";

const LOOK_EVERY_MS = 300;

/**
 * The minutes until a next attempt pass at once, and so does what is left of the lease of a sender that has been silent for seconds: receivers that
 * are well answer at once, so that sender is dead.
 */
async function passTime({ look }: FaultPlatform, ids: readonly string[]): Promise<void> {
  await look.query(
    `UPDATE webhook_deliveries SET next_attempt_at = least(next_attempt_at, now()), lease_until = CASE WHEN lease_until < now() + interval '26 seconds' THEN least(lease_until, now()) ELSE lease_until END
      WHERE status = 'pending' AND webhook_id = ANY ($1::uuid[]) AND (next_attempt_at > now() OR lease_until BETWEEN now() AND now() + interval '26 seconds')`,
    [ids],
  );
  await look.query("UPDATE webhooks SET resume_at = NULL, next_ring_at = NULL WHERE id = ANY ($1::uuid[]) AND (resume_at > now() OR next_ring_at > now() + interval '1 second')", [
    ids,
  ]);
}

const wellOnes = ({ receivers }: FaultPlatform): string[] => receivers.endpoints.flatMap(({ id, isHealthy }) => (isHealthy ? [id] : []));

/** Until it is stopped, nothing for receivers that are well waits for the clock: an endpoint would be as good as shut for the lease of each sender that is killed. */
export function keepTelling(platform: FaultPlatform): () => void {
  const timer = setInterval(() => void passTime(platform, wellOnes(platform)).catch(() => {}), 1_000);
  return () => clearInterval(timer);
}

/** False: something was never told. */
export async function untilTold({ platform, times }: Pick<RoundTools, "platform" | "times">): Promise<boolean> {
  const until = performance.now() + times.patienceMs;
  for (;;) {
    const ids = wellOnes(platform);
    const { rows } = await platform.look.query<{ open: string }>("SELECT count(*) AS open FROM webhook_deliveries WHERE status = 'pending' AND webhook_id = ANY ($1::uuid[])", [
      ids,
    ]);
    if (rows[0]?.open === "0") return true;
    if (performance.now() > until) return false;
    await passTime(platform, ids);
    await delay(LOOK_EVERY_MS);
  }
}

/** How often an endpoint that is well was told the same thing again. */
export function repeats({ platform }: Pick<RoundTools, "platform">): { told: number; again: number } {
  const accepted = platform.receivers.heard.filter(({ is_accepted }) => is_accepted);
  const distinct = new Set(accepted.map(({ endpoint, webhook_id }) => `${endpoint} ${webhook_id}`)).size;
  return { told: distinct, again: accepted.length - distinct };
}
