/** A router over three plugins whose sentences and commands lie where the test puts them; only Redis and the provider are real. */
import type { Redis } from "ioredis";
import * as v from "valibot";
import { asId } from "../../shared/ids.ts";
import { type Embedder, toUnitVector } from "../../shared/models/embedder.ts";
import { openUpstream } from "../../shared/models/upstream.ts";
import type { Catalogue } from "../../shared/registry/catalogue.ts";
import type { Router } from "../../shared/routing/route-command.ts";
import { Manifest } from "../../shared/sdk/src/manifest.ts";

export const TENANT = asId("tenant", "019f0e6a-5c00-7a11-8b22-000000000001");
export const OTHER_TENANT = asId("tenant", "019f0e6a-5c00-7a11-8b22-000000000002");

/** Each plugin is a direction; a command leans towards some of them. */
export const leaning = (parts: readonly number[]) => toUnitVector(parts);
const AXES: Record<string, readonly number[]> = { "plan-maker": [1], "text-reader": [0, 1], "word-counter": [0, 0, 1] };

export function catalogueOf(generation = "7", descriptions: Record<string, string> = {}): Catalogue {
  const entries = Object.entries(AXES).map(([name, axis]) => {
    const manifest = v.parse(Manifest, {
      name,
      version: "1.2.3",
      description: descriptions[name] ?? `What ${name} does, in one sentence.`,
      capabilities: [`Do the work of ${name.replace("-", " ")}.`],
      category: "testing",
      envelope_version: "1.0",
      estimated_latency: "medium",
      model: "claude-sonnet-4-6",
    });
    const health = { status: "healthy" as const, components: {} };
    return [
      name,
      {
        name,
        version: "1.2.3",
        status: "active",
        manifest,
        health,
        endpoint: "http://127.0.0.1:1",
        vectors: new Map([[EMBEDDING_MODEL, [leaning(axis)]]]),
        versions: new Map([["1.2.3", manifest]]),
      },
    ] as const;
  });
  return { generation, plugins: new Map(entries) };
}

/** Has calibrated lines of its own. */
export const EMBEDDING_MODEL = "offline-hybrid-1";

/** Commands by what they lean to; the background sentences lean to nothing that a plugin does. Counts its calls. */
export function embedderOf(commands: Record<string, readonly number[]>): Embedder & { calls: string[][] } {
  const calls: string[][] = [];
  return {
    model: EMBEDDING_MODEL,
    calls,
    async embed(texts) {
      if (texts.some((text) => text in commands)) calls.push([...texts]);
      return texts.map((text) => leaning(commands[text] ?? [0, 0, 0, 1]));
    },
  };
}

export interface Heard {
  degraded: string[];
  chosen: { outcome: string; model: string; inputTokens: number; outputTokens: number }[];
}

export function routerOf(redis: Redis, embedder: Embedder, more: Partial<Router> = {}): Router & { heard: Heard } {
  const heard: Heard = { degraded: [], chosen: [] };
  const telemetry = { degraded: (part: string) => heard.degraded.push(part), modelChoseRoute: (call: Heard["chosen"][number]) => heard.chosen.push(call) };
  return { catalogue: catalogueOf(), embedder, upstream: openUpstream({}), redis, thresholds: {}, visible: null, telemetry, ...more, heard };
}
