/** Somebody who does a little of everything, and is then forgotten: how they live, how they are erased, and where they are looked for. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parseId, publicId } from "../../shared/ids.ts";
import { type Found, searchPostgres, searchRedis, searchStorage } from "../privacy/places.ts";
import type { Job } from "./client.ts";
import { type FaultPlatform, UNLIMITED } from "./platform.ts";
import plugin, { FILER } from "./plugin.ts";
import type { ScenarioTools } from "./scenarios/scenario.ts";
import type { Member } from "./tenants.ts";

export interface Leaver extends Member {
  /** Stands in everything that they leave. */
  word: string;
  owner: Member;
}

const LOOK_EVERY_MS = 250;
const PATIENCE_MS = 120_000;

export async function hire({ platform }: ScenarioTools, word: string): Promise<Leaver> {
  const owner = await platform.tenants.add({ ...UNLIMITED, name: "leavers", subscriptions: { [plugin.name]: null, [FILER]: null } });
  return { ...(await platform.tenants.addUser(owner.tenantId, `${word}@people.example`)), word, owner };
}

/** Conversations, plans with tickets, files; `slowMs` for work that is still under way when they leave. */
export function live(tools: ScenarioTools, { word, key, owner }: Leaver, count: number, more: Partial<Job> = {}): Promise<void> {
  const first = more.slowMs ?? 0;
  return tools.send(count, (i) => ({
    marker: `${word}-${first}-${i}`,
    apiKey: key,
    readKey: owner.key,
    conversation: i % 2 === 0 ? `${word}-talk` : undefined,
    isPlan: i % 3 === 0,
    deserves: undefined,
    ...more,
  }));
}

/** The erasure's id; null: no answer. */
export async function askToForget({ platform }: ScenarioTools, { owner, userId }: Leaver): Promise<string | null> {
  try {
    const answer = await fetch(`${platform.api.url}/v1/gdpr/erasure-request`, {
      method: "POST",
      headers: { authorization: `Bearer ${owner.key}`, "content-type": "application/json" },
      body: JSON.stringify({ user_id: publicId("user", userId) }),
    });
    const body = (await answer.json()) as { erasure_id?: string };
    return answer.status === 202 ? parseId("erasure", body.erasure_id ?? "") : null;
  } catch {
    return null;
  }
}

/** Whoever worked on it was killed: its lease, and the pause that it asked for, pass at once. */
export async function passTime(query: (text: string, values: unknown[]) => Promise<unknown>, erasure: string): Promise<void> {
  await query("UPDATE erasure_requests SET lease_until = NULL, next_attempt_at = now(), next_ring_at = now() WHERE id = $1 AND state <> 'completed'", [erasure]);
}

/** `wake` rings each second for what is due. */
export async function untilForgotten({ platform }: ScenarioTools, erasure: string, isEnough: () => boolean = () => false): Promise<boolean> {
  const until = performance.now() + PATIENCE_MS;
  while (performance.now() < until) {
    const { rows } = await platform.look.query<{ state: string }>("SELECT state FROM erasure_requests WHERE id = $1", [erasure]);
    if (rows[0]?.state === "completed") return true;
    if (isEnough()) return false;
    await platform.look.query("UPDATE erasure_requests SET next_ring_at = now() WHERE id = $1 AND lease_until IS NULL AND next_attempt_at <= now() + interval '5 seconds'", [
      erasure,
    ]);
    await delay(LOOK_EVERY_MS);
  }
  return false;
}

/** All of PostgreSQL, Redis, the store and the logs. */
export async function searchFor({ sources, redis }: Pick<FaultPlatform, "sources" | "redis">, word: string, databaseUrl = sources.databaseUrl): Promise<Found> {
  const logs = readdirSync(sources.logFolder).filter((file) => file.endsWith(".log") && readFileSync(join(sources.logFolder, file), "utf8").includes(word));
  return {
    ...(await searchPostgres(databaseUrl, word)),
    ...(await searchRedis(redis.url, word)),
    ...(await searchStorage({ env: { S3_ENDPOINT: sources.s3.endpoint, S3_BUCKET: sources.s3.bucket } }, word)),
    ...(logs.length > 0 ? { logs: logs.length } : {}),
  };
}

export const totalOf = (found: Found): number => Object.values(found).reduce((sum, count) => sum + count, 0);
