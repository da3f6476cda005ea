/** The outside parts of the platform: what the environment gives is used, what it does not give is embedded. */
import { startFauxqs } from "fauxqs";
import { openObjectStore } from "../../shared/storage/object-store.ts";
import type { Home } from "./home.ts";
import { checkPostgres, startPglite } from "./postgres.ts";
import { checkRedis, startRedis } from "./redis.ts";

export interface Part {
  name: string;
  stop(): Promise<unknown>;
}

export interface Parts {
  list: { name: string; about: string }[];
  env: Record<string, string | undefined>;
  hasModel: boolean;
  models: string;
}

/** Settings of ours that pass from the caller's environment to the functions. */
const PASSED = [
  "DATABASE_URL",
  "DATABASE_DRIVER",
  "REDIS_URL",
  "S3_ENDPOINT",
  "S3_BUCKET",
  "AWS_REGION",
  "AWS_ACCESS_KEY_ID",
  "AWS_SECRET_ACCESS_KEY",
  "ANTHROPIC_API_KEY",
  "ANTHROPIC_BASE_URL",
  "ANTHROPIC_MODEL",
  "OPENAI_API_KEY",
  "OPENAI_BASE_URL",
  "CHAIN_THRESHOLD",
  "CONFIDENCE_MIN",
  "LOG_LEVEL",
  "PATH",
  "HOME",
] as const;

export async function findParts(home: Home, given: NodeJS.ProcessEnv, onStart: (part: Part) => void): Promise<Parts> {
  const env: Record<string, string | undefined> = Object.fromEntries(PASSED.map((name) => [name, given[name]]));
  const list: Parts["list"] = [];

  if (env.DATABASE_URL) {
    await checkPostgres(env.DATABASE_URL).catch((cause: unknown) => {
      throw new Error("PostgreSQL at DATABASE_URL cannot be reached.", { cause });
    });
    list.push({ name: "PostgreSQL", about: "yours, from DATABASE_URL" });
  } else {
    const postgres = await startPglite(home.path("postgres"), home.logFile("postgres"));
    onStart({ name: "PostgreSQL", stop: postgres.stop });
    env.DATABASE_URL = postgres.url;
    list.push({ name: "PostgreSQL", about: "PGlite with pgvector, embedded" });
  }

  if (env.REDIS_URL) {
    await checkRedis(env.REDIS_URL).catch((cause: unknown) => {
      throw new Error("Redis at REDIS_URL cannot be used.", { cause });
    });
    list.push({ name: "Redis", about: "yours, from REDIS_URL" });
  } else {
    const redis = await startRedis(home.path("redis"), { logFile: home.logFile("redis") });
    onStart({ name: "Redis", stop: redis.stop });
    env.REDIS_URL = redis.url;
    list.push({ name: "Redis", about: redis.url });
  }

  if (env.S3_ENDPOINT || env.AWS_ACCESS_KEY_ID) list.push({ name: "storage", about: env.S3_ENDPOINT ? "yours, from S3_ENDPOINT" : "AWS S3" });
  else {
    const s3 = await startFauxqs({ port: 0, logger: false });
    onStart({ name: "storage", stop: () => s3.stop() });
    env.S3_ENDPOINT = `http://127.0.0.1:${s3.port}`;
    env.AWS_ACCESS_KEY_ID = "local";
    env.AWS_SECRET_ACCESS_KEY = "local";
    list.push({ name: "storage", about: "S3 in memory; artifacts go when it stops" });
  }
  const store = openObjectStore({
    endpoint: env.S3_ENDPOINT,
    bucket: env.S3_BUCKET ?? "aau-artifacts",
    region: env.AWS_REGION ?? "us-east-1",
    accessKeyId: env.AWS_ACCESS_KEY_ID,
    secretAccessKey: env.AWS_SECRET_ACCESS_KEY,
  });
  await store.ensureBucket().finally(() => store.close());

  const hasModel = Boolean(env.ANTHROPIC_API_KEY || env.ANTHROPIC_BASE_URL);
  const embeddings = env.OPENAI_API_KEY ? "text-embedding-3-small" : "offline embeddings";
  const models = hasModel
    ? `${env.ANTHROPIC_BASE_URL ?? "Anthropic"}, ${embeddings}`
    : `offline: no ANTHROPIC_API_KEY is set, so only what needs no language model is done (${embeddings})`;
  return { list, env, hasModel, models };
}
