/** Finds the chunks of a tenant's documents that bear on a question. */
import * as v from "valibot";
import type { TenantDb } from "../db/database.ts";
import type { TenantId } from "../ids.ts";
import type { Embedder } from "../models/embedder.ts";
import type { KnowledgeChunk } from "../sdk/src/envelopes.ts";
import { timeLimit } from "../sdk/src/time-limit.ts";
import { SIMILARITY_CUTS } from "./similarity-cuts.ts";
import { vectorLiteral } from "./vector-literal.ts";

/** SPEC 14.3: at most eight chunks and 2,000 tokens. */
const MAX_CHUNKS = 8;
const MAX_TOKENS = 2_000;
/** Some are dropped as copies or because they do not fit. */
const CANDIDATES = 2 * MAX_CHUNKS;
/** Up to this many chunks a tenant is searched exactly; beyond, through the index. */
const EXACT_UP_TO = 2_000;
const EMBED_TIMEOUT_MS = 5_000;

const Hit = v.object({
  document_id: v.string(),
  source_url: v.nullable(v.string()),
  heading: v.string(),
  content: v.string(),
  token_count: v.number(),
  similarity: v.number(),
});
export type Hit = v.InferOutput<typeof Hit>;

export interface Retriever {
  db: TenantDb;
  embedder: Embedder;
}

export interface Question {
  text: string;
  /** The text's vector, if somebody has embedded it with this very model; else null. */
  vector: Float32Array | null;
}

/** What a task is given: the nearest chunks, best first, each text once, within `MAX_TOKENS`. One round trip where the vector is there. */
export async function retrieveKnowledge(retriever: Retriever, tenantId: TenantId, question: Question): Promise<KnowledgeChunk[]> {
  const hits = await searchKnowledge(retriever, tenantId, question, CANDIDATES);
  return withinBudget(hits).map(({ content, source_url, heading, similarity }) => ({ content, source_url, heading: heading || null, similarity }));
}

/** The nearest chunks above the model's cut, best first. Throws what the embedder throws. */
export async function searchKnowledge({ db, embedder }: Retriever, tenantId: TenantId, { text, vector }: Question, limit: number): Promise<Hit[]> {
  const query = vector ?? ((await hasKnowledge(db, tenantId, embedder.model)) ? await embedOne(embedder, text) : null);
  return query === null ? [] : nearestChunks(db, tenantId, { model: embedder.model, vector: query, limit });
}

async function hasKnowledge(db: TenantDb, tenantId: TenantId, model: string): Promise<boolean> {
  const [row] = await db.call<{ found: boolean }>("SELECT has_knowledge($1, $2) AS found", [tenantId, model]);
  return row?.found === true;
}

async function embedOne(embedder: Embedder, text: string): Promise<Float32Array> {
  const [vector] = await embedder.embed([text], timeLimit(EMBED_TIMEOUT_MS));
  if (!vector) throw new Error("the embedder answered without a vector");
  return vector;
}

export interface NearestQuery {
  model: string;
  vector: Float32Array;
  limit: number;
  /** The model's own cut unless said. */
  minSimilarity?: number;
  exactUpTo?: number;
}

export async function nearestChunks(db: TenantDb, tenantId: TenantId, { model, vector, limit, minSimilarity, exactUpTo = EXACT_UP_TO }: NearestQuery): Promise<Hit[]> {
  // A model that nobody has measured is not cut: its nearest chunks are as good a guess as any.
  const min = minSimilarity ?? SIMILARITY_CUTS[model]?.cut ?? -1;
  return v.parse(v.array(Hit), await db.call("SELECT * FROM nearest_chunks($1, $2, $3, $4, $5, $6)", [tenantId, model, vectorLiteral(vector), min, limit, exactUpTo]));
}

/** A chunk that is too long for what is left makes room for a shorter one behind it. */
function withinBudget(hits: readonly Hit[]): Hit[] {
  const taken: Hit[] = [];
  const seen = new Set<string>();
  let left = MAX_TOKENS;
  for (const hit of hits) {
    const text = hit.content.replace(/\s+/g, " ").toLowerCase();
    if (taken.length === MAX_CHUNKS || hit.token_count > left || seen.has(text)) continue;
    seen.add(text);
    left -= hit.token_count;
    taken.push(hit);
  }
  return taken;
}
