/** Carries erasures out without waiting for the clock. */
import { expect } from "vitest";
import type { Database } from "../../shared/db/database.ts";
import type { ErasureId } from "../../shared/ids.ts";
import { publicId } from "../../shared/ids.ts";
import type { TestPlatform } from "../support/platform.ts";

/** What ended just now ended long ago, and whoever worked on an erasure is gone. */
export async function passTime(db: Database): Promise<void> {
  await db.call("UPDATE tasks SET completed_at = completed_at - interval '5 minutes' WHERE completed_at > now() - interval '5 minutes'", []);
  await db.call("UPDATE erasure_requests SET lease_until = NULL, next_attempt_at = now() WHERE state <> 'completed'", []);
}

export async function wakeEraser(platform: TestPlatform, id: ErasureId): Promise<number> {
  const answer = await fetch(`${platform.internalUrl}/functions/user-erase`, {
    method: "POST",
    headers: {
      authorization: `Bearer ${platform.serviceToken}`,
      "content-type": "application/json",
      "ce-specversion": "1.0",
      "ce-id": crypto.randomUUID(),
      "ce-source": "/test",
      "ce-type": "io.aau.erasure.requested",
    },
    body: JSON.stringify({ erasure_id: publicId("erasure", id) }),
  });
  return answer.status;
}

export async function stateOf(db: Database, id: ErasureId) {
  const [row] = await db.call<{ state: string; counts: Record<string, number>; leftovers: number; attempts: number; done: string[] }>(
    "SELECT state, counts, leftovers, attempts, done FROM erasure_requests WHERE id = $1",
    [id],
  );
  return row;
}

/** Rings until the certificate is there. */
export async function finishErasure(platform: TestPlatform, id: ErasureId): Promise<Record<string, number>> {
  for (let rings = 0; rings < 10; rings++) {
    await passTime(platform.db);
    expect(await wakeEraser(platform, id)).toBe(204);
    const state = await stateOf(platform.db, id);
    if (state?.state === "completed") return state.counts;
  }
  throw new Error(`the erasure does not end: ${JSON.stringify(await stateOf(platform.db, id))}`);
}
