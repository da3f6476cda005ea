/** Names of streams and channels, and the ring itself. Entries carry ids, never content. */
import type { Redis } from "ioredis";
import { publicId } from "../ids.ts";
import { tryRedis } from "./availability.ts";

export const CONSUMER_GROUP = "bridge";
export const DEAD_STREAM = "stream:dead";
export const SUMMARY_STREAM = "stream:summarization";
export const taskStream = (plugin: string): string => `stream:tasks:${plugin}`;
/** What a tenant has queued beyond its share of a plugin waits here, so that it stands in nobody else's way. */
export const backlogStream = (plugin: string): string => `stream:backlog:${plugin}`;
/** Executions of one plugin that a tenant may have open before its next ones go to the backlog. */
const FAIR_SHARE = 64;
export const KNOWLEDGE_STREAM = "stream:knowledge";
export const WEBHOOK_STREAM = "stream:webhooks";
/** Stands while a ring for this endpoint is under way: a thousand events of one moment ring once. */
const rungKey = (webhookId: string): string => `rung:${webhookId}`;
/** A ring that was lost holds up the next one for this long. */
const RUNG_MS = 2_000;
export const ERASURE_STREAM = "stream:erasure";
export const CANCEL_CHANNEL = "cancel";
export const cancelFlag = (taskId: string): string => `cancel:${taskId}`;
/** The channels of the processes that wait for this task. */
export const watchersKey = (taskId: string): string => `watchers:${taskId}`;

export interface Ring {
  /**
   * Wakes the function that works on this task. `id` is the CloudEvent's id and stays the same when a ring is delivered
   * again. `backlog`: executions of this plugin that the tenant has open, with this one. False: Redis is away; the row says what is
   * due and `wake` rings later.
   */
  task(plugin: string, taskId: string, traceparent: string, backlog: number): Promise<boolean>;
  /** Wakes the function that summarises this conversation. False: Redis is away; `wake` rings later. */
  conversation(conversationId: string, traceparent: string): Promise<boolean>;
  /** Wakes the function that embeds this document; false as above. */
  document(documentId: string, traceparent: string): Promise<boolean>;
  /** Wakes the function that delivers to this endpoint, unless it was rung for and has not begun yet; false as above. */
  webhook(webhookId: string, traceparent: string): Promise<boolean>;
  /** To be said before looking for what is due: what becomes due from now on needs another ring. */
  webhookHeard(webhookId: string): Promise<void>;
  /** Wakes the function that carries out this erasure; false as above. */
  erasure(erasureId: string, traceparent: string): Promise<boolean>;
  /** Whether a ring would be heard now. */
  isReady(): Promise<boolean>;
}

export function openRing(redis: Redis): Ring {
  return {
    async task(plugin, taskId, traceparent, backlog) {
      const stream = backlog > FAIR_SHARE ? backlogStream(plugin) : taskStream(plugin);
      const id = await tryRedis(redis, (r) => r.xadd(stream, "*", "task_id", publicId("task", taskId), "traceparent", traceparent));
      return id !== null;
    },
    async conversation(conversationId, traceparent) {
      const id = await tryRedis(redis, (r) => r.xadd(SUMMARY_STREAM, "*", "conversation_id", publicId("conversation", conversationId), "traceparent", traceparent));
      return id !== null;
    },
    async document(documentId, traceparent) {
      const id = await tryRedis(redis, (r) => r.xadd(KNOWLEDGE_STREAM, "*", "document_id", publicId("document", documentId), "traceparent", traceparent));
      return id !== null;
    },
    async webhook(webhookId, traceparent) {
      const isFirst = await tryRedis(redis, (r) => r.set(rungKey(webhookId), "1", "PX", RUNG_MS, "NX"));
      if (isFirst === null) return (await tryRedis(redis, (r) => r.exists(rungKey(webhookId)))) === 1;
      const id = await tryRedis(redis, (r) => r.xadd(WEBHOOK_STREAM, "*", "webhook_id", publicId("webhook", webhookId), "traceparent", traceparent));
      return id !== null;
    },
    async webhookHeard(webhookId) {
      await tryRedis(redis, (r) => r.del(rungKey(webhookId)));
    },
    async erasure(erasureId, traceparent) {
      const id = await tryRedis(redis, (r) => r.xadd(ERASURE_STREAM, "*", "erasure_id", publicId("erasure", erasureId), "traceparent", traceparent));
      return id !== null;
    },
    isReady: async () => (await tryRedis(redis, (r) => r.ping())) !== null,
  };
}
