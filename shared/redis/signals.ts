/**
 * Wake-up calls over pub/sub: "this task ended", "there is progress", "cancel that task". A lost call costs time, never
 * truth: whoever waits also looks at PostgreSQL now and then.
 */
import type { Redis } from "ioredis";
import { tryRedis } from "./availability.ts";
import { CANCEL_CHANNEL, cancelFlag, doneChannel, progressChannel } from "./streams.ts";

const CANCEL_FLAG_SEC = 3600;

export interface Signals {
  taskEnded(taskId: string): Promise<void>;
  taskProgressed(taskId: string): Promise<void>;
  cancelRequested(taskId: string): Promise<void>;
  /** True when the flag is set; false also when Redis cannot say. */
  isCancelRequested(taskId: string): Promise<boolean>;
  /** Calls back at every end or progress of this task until disposed. Resolves once the subscription stands. */
  watchTask(taskId: string, onSignal: () => void): Promise<AsyncDisposable>;
  /** Calls back with the id of every task that is asked to stop, until disposed. */
  watchCancels(onCancel: (taskId: string) => void): Promise<AsyncDisposable>;
}

export function openSignals(redis: Redis, subscriber: Redis): Signals {
  const listeners = new Map<string, Set<(message: string) => void>>();
  subscriber.on("message", (channel: string, message: string) => {
    for (const listener of listeners.get(channel) ?? []) listener(message);
  });

  // ioredis repeats only the subscriptions that once stood; those that were asked for while Redis was away are made up for here.
  subscriber.on("ready", () => {
    const channels = [...listeners.keys()];
    if (channels.length > 0) void tryRedis(subscriber, (r) => withTimeout(r.subscribe(...channels)));
  });

  async function listen(channels: string[], onMessage: (message: string) => void): Promise<AsyncDisposable> {
    const fresh: string[] = [];
    for (const channel of channels) {
      const present = listeners.get(channel);
      if (present) present.add(onMessage);
      else {
        listeners.set(channel, new Set([onMessage]));
        fresh.push(channel);
      }
    }
    if (fresh.length > 0) await tryRedis(subscriber, (r) => withTimeout(r.subscribe(...fresh)));
    return {
      async [Symbol.asyncDispose]() {
        const silent: string[] = [];
        for (const channel of channels) {
          const present = listeners.get(channel);
          present?.delete(onMessage);
          if (present?.size === 0) {
            listeners.delete(channel);
            silent.push(channel);
          }
        }
        if (silent.length > 0) await tryRedis(subscriber, (r) => withTimeout(r.unsubscribe(...silent)));
      },
    };
  }

  return {
    taskEnded: async (taskId) => void (await tryRedis(redis, (r) => r.publish(doneChannel(taskId), ""))),
    taskProgressed: async (taskId) => void (await tryRedis(redis, (r) => r.publish(progressChannel(taskId), ""))),
    async cancelRequested(taskId) {
      await tryRedis(redis, (r) => Promise.all([r.set(cancelFlag(taskId), "1", "EX", CANCEL_FLAG_SEC), r.publish(CANCEL_CHANNEL, taskId)]));
    },
    isCancelRequested: async (taskId) => (await tryRedis(redis, (r) => r.exists(cancelFlag(taskId)))) === 1,
    watchTask: (taskId, onSignal) => listen([doneChannel(taskId), progressChannel(taskId)], onSignal),
    watchCancels: (onCancel) => listen([CANCEL_CHANNEL], onCancel),
  };
}

/** The subscriber's connection has no command time-out, since it waits on purpose; its commands must not. */
function withTimeout<T>(command: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("SUBSCRIBE timed out")), 1_000);
  });
  return Promise.race([command, late]).finally(() => clearTimeout(timer));
}
