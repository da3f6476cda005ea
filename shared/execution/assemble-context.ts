/**
 * What a plugin is told besides its command. The conversation and the organisation's knowledge are looked up once per task, side by side,
 * and kept with it: a later attempt asks a model the same, so the journal answers and nothing is paid twice. Each step gets the part that
 * its manifest's scopes open.
 */
import type { Redis } from "ioredis";
import * as v from "valibot";
import { grantedSecretNames, type TenantSecrets } from "../access/tenant-secrets.ts";
import { loadHistory } from "../conversations/history.ts";
import type { TenantDb } from "../db/database.ts";
import { asId, publicId } from "../ids.ts";
import { retrieveKnowledge } from "../knowledge/retrieve.ts";
import type { Embedder } from "../models/embedder.ts";
import { type InputEnvelope, KnowledgeChunk, Turn, Warning } from "../sdk/src/envelopes.ts";
import type { Telemetry } from "../telemetry/domain-events.ts";
import type { Claim, ClaimedStep } from "./claim-task.ts";
import { LeaseLost } from "./lease.ts";
import { storableJson } from "./storable-json.ts";

/** A task waits no longer than this for what it can do without. */
const LOOKUP_MS = 2_000;

export const TaskContext = v.object({
  history: v.array(Turn),
  knowledge: v.array(KnowledgeChunk),
  warnings: v.array(Warning),
  /** Steps, with their plugin, for which it was too long: they are told less from the start in every later attempt. */
  shortened: v.optional(v.array(v.string())),
});
export type TaskContext = v.InferOutput<typeof TaskContext>;

const NOTHING: TaskContext = { history: [], knowledge: [], warnings: [] };

export interface ContextReader {
  db: TenantDb;
  redis: Redis;
  embedder: Embedder;
  secrets: TenantSecrets;
  telemetry: Pick<Telemetry, "degraded" | "stepFinished">;
}

const hasScope = (step: ClaimedStep, scope: "context:read" | "knowledge:read"): boolean => step.manifest.required_scopes.includes(scope);

/** Throws LeaseLost when the task is in other hands. A part that cannot be read is a warning: the task goes on without it. */
export async function loadTaskContext(reader: ContextReader, claim: Claim): Promise<TaskContext> {
  if (claim.context) return claim.context;
  const { tenantId, userId, conversationId, commandVector } = claim;
  const wantsHistory = conversationId !== null && userId !== null && claim.steps.some((step) => hasScope(step, "context:read"));
  const wantsKnowledge = claim.steps.some((step) => hasScope(step, "knowledge:read"));
  if (!wantsHistory && !wantsKnowledge) return NOTHING;

  const warnings: Warning[] = [];
  const read = async <T>(part: string, isWanted: boolean, look: () => Promise<T[]>): Promise<T[]> => {
    if (!isWanted) return [];
    try {
      return await withinTime(look());
    } catch (error) {
      reader.telemetry.degraded(part, error);
      warnings.push({ code: "CONTEXT_UNAVAILABLE", message: `The ${part} could not be read; the task was done without.` });
      return [];
    }
  };
  const [history, knowledge] = await Promise.all([
    read("conversation", wantsHistory, () => loadHistory(reader, tenantId, conversationId, userId)),
    read("organisation's knowledge", wantsKnowledge, () =>
      retrieveKnowledge(reader, tenantId, { text: claim.command, vector: commandVector?.model === reader.embedder.model ? commandVector.values : null }),
    ),
  ]);
  const context = storableJson({ history, knowledge, warnings });
  const [row] = await reader.db.call<{ kept: boolean }>("SELECT keep_task_context($1, $2, $3, $4) AS kept", [tenantId, claim.taskId, claim.leaseToken, context]);
  if (!row?.kept) throw new LeaseLost();
  return v.parse(v.pipe(v.string(), v.parseJson(), TaskContext), context);
}

export interface Shortening {
  /** An earlier attempt found out that the whole does not fit. */
  isKnown: boolean;
  /** Has later attempts begin with less: what they ask a model is then what this one goes on to ask, and is paid already. */
  keep(): Promise<void>;
}

export function shorteningOf(reader: Pick<ContextReader, "db">, claim: Claim, step: ClaimedStep, context: TaskContext): Shortening {
  const name = `${step.id} ${step.plugin}`;
  return {
    isKnown: context.shortened?.includes(name) ?? false,
    async keep() {
      // Steps that run side by side share the context.
      context.shortened = [...(context.shortened ?? []), name];
      // Without it a later attempt goes the long way: it finds out anew, and pays nothing for that.
      await reader.db.call("SELECT keep_task_context($1, $2, $3, $4)", [claim.tenantId, claim.taskId, claim.leaseToken, storableJson(context)]).catch(() => {});
    },
  };
}

/** The envelope's `context` for one step. Secrets are read for this moment only; without the scope `secrets:{name}` a declared name stays closed. */
export async function stepContext(reader: ContextReader, claim: Claim, step: ClaimedStep, context: TaskContext): Promise<InputEnvelope["context"]> {
  const names = grantedSecretNames(step.manifest);
  const isTold = hasScope(step, "context:read");
  return {
    tenant_id: publicId("tenant", claim.tenantId),
    user_id: claim.userId === null ? null : publicId("user", asId("user", claim.userId)),
    user_profile: isTold ? (claim.profile ?? {}) : {},
    conversation_history: isTold ? context.history : [],
    org_knowledge_chunks: hasScope(step, "knowledge:read") ? context.knowledge : [],
    plugin_config: step.config,
    // A plugin that misses its secret does other work than asked, so this one is no lookup that it can do without.
    secrets: names.length === 0 ? {} : await reader.secrets.reveal(reader.db, claim.tenantId, step.plugin, names),
  };
}

function withinTime<T>(work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${LOOKUP_MS} ms`)), LOOKUP_MS);
  });
  return Promise.race([work, late]).finally(() => clearTimeout(timer));
}
