/** Every place where something may stand, searched as a whole: all rows of all tables as text, all of Redis, all objects, all log lines. */
import { Redis } from "ioredis";
import pg from "pg";
import { openObjectStore } from "../../shared/storage/object-store.ts";
import type { TestPlatform } from "../support/platform.ts";

/** Table, family of keys, or kind of place, with how often the text was found there. */
export type Found = Record<string, number>;

export async function searchPostgres(databaseUrl: string, text: string): Promise<Found> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    const { rows: tables } = await client.query<{ name: string }>("SELECT quote_ident(tablename) AS name FROM pg_tables WHERE schemaname = 'public' ORDER BY 1");
    const found: Found = {};
    for (const { name } of tables) {
      // Bytes print as hexadecimal digits.
      const { rows } = await client.query<{ count: string }>(`SELECT count(*) FROM ${name} AS r WHERE r::text ILIKE '%' || $1 || '%' OR r::text LIKE '%' || $2 || '%'`, [
        text,
        Buffer.from(text).toString("hex"),
      ]);
      if (Number(rows[0]?.count) > 0) found[name] = Number(rows[0]?.count);
    }
    return found;
  } finally {
    await client.end();
  }
}

export async function searchRedis(url: string, text: string): Promise<Found> {
  const redis = new Redis(url);
  try {
    const found: Found = {};
    for await (const keys of redis.scanStream()) {
      for (const key of keys as string[]) {
        if (!`${key} ${JSON.stringify(await readValue(redis, key))}`.toLowerCase().includes(text.toLowerCase())) continue;
        const family = `redis ${key.split(":")[0]}`;
        found[family] = (found[family] ?? 0) + 1;
      }
    }
    return found;
  } finally {
    redis.disconnect();
  }
}

async function readValue(redis: Redis, key: string): Promise<unknown> {
  switch (await redis.type(key)) {
    case "string":
      return redis.get(key);
    case "hash":
      return redis.hgetall(key);
    case "list":
      return redis.lrange(key, 0, -1);
    case "set":
      return redis.smembers(key);
    case "zset":
      return redis.zrange(key, "0", "-1");
    case "stream":
      return redis.xrange(key, "-", "+");
    default:
      return null;
  }
}

export function storeOf({ env }: Pick<TestPlatform, "env">) {
  return openObjectStore({ endpoint: env.S3_ENDPOINT, bucket: env.S3_BUCKET ?? "aau-artifacts", region: "us-east-1", accessKeyId: "test", secretAccessKey: "test" });
}

export async function searchStorage(platform: Pick<TestPlatform, "env">, text: string): Promise<Found> {
  const store = storeOf(platform);
  let count = 0;
  for (let after: string | null = null; ; ) {
    const page: string[] = (await store.list("", after)).map(({ key }) => key);
    for (const key of page) if (key.includes(text) || Buffer.from((await store.get(key)) ?? new Uint8Array()).includes(text)) count += 1;
    after = page.at(-1) ?? null;
    if (after === null) break;
  }
  store.close();
  return count > 0 ? { storage: count } : {};
}

export async function searchEverywhere(platform: TestPlatform, lines: readonly string[], text: string): Promise<Found> {
  const logged = lines.filter((line) => line.toLowerCase().includes(text.toLowerCase())).length;
  return {
    ...(await searchPostgres(platform.env.DATABASE_URL ?? "", text)),
    ...(await searchRedis(platform.redis.url, text)),
    ...(await searchStorage(platform, text)),
    ...(logged > 0 ? { logs: logged } : {}),
  };
}
