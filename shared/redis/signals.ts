/**
 * Wake-up calls over pub/sub: "this task ended", "there is progress", "cancel that task". A lost call costs time, never
 * truth: whoever waits also looks at PostgreSQL now and then.
 *
 * Each process hears one channel of its own and notes its name at the tasks that it waits for, so that a wait costs no
 * subscription and a call goes to those processes only that wait for it, however many there are.
 */
import type { Redis, Result } from "ioredis";
import { randomHex } from "../ids.ts";
import { tryRedis } from "./availability.ts";
import { CANCEL_CHANNEL, cancelFlag, watchersKey } from "./streams.ts";

const CANCEL_FLAG_SEC = 3600;
/** Longer than any wait; it only clears up behind processes that were killed. */
const WATCH_SEC = 3600;

export interface Signals {
  taskEnded(taskId: string): Promise<void>;
  taskProgressed(taskId: string): Promise<void>;
  cancelRequested(taskId: string): Promise<void>;
  /** True when the flag is set; false also when Redis cannot say. */
  isCancelRequested(taskId: string): Promise<boolean>;
  /** Calls back at every end or progress of this task until disposed. Resolves once the call would be heard. */
  watchTask(taskId: string, onSignal: () => void): Promise<AsyncDisposable>;
  /** Calls back with the id of every task that is asked to stop, until disposed. */
  watchCancels(onCancel: (taskId: string) => void): Promise<AsyncDisposable>;
}

// KEYS: watchers. ARGV: task id, then `.` when there is nothing more to come.
const CALL = `
local watchers = redis.call('SMEMBERS', KEYS[1])
for _, channel in ipairs(watchers) do redis.call('PUBLISH', channel, ARGV[1] .. ARGV[2]) end
if ARGV[2] == '.' and #watchers > 0 then redis.call('DEL', KEYS[1]) end
return #watchers
`;

declare module "ioredis" {
  interface RedisCommander<Context> {
    aauCall(watchers: string, taskId: string, end: string): Result<number, Context>;
  }
}

export function openSignals(redis: Redis, subscriber: Redis): Signals {
  redis.defineCommand("aauCall", { numberOfKeys: 1, lua: CALL });
  const own = `wake:${randomHex()}`;
  const watched = new Map<string, { listeners: Set<() => void>; isNoted: boolean }>();
  const cancels = new Set<(taskId: string) => void>();
  /** Channels that were asked for, and whether each stands. */
  const channels = new Map<string, Promise<boolean>>();

  subscriber.on("message", (channel: string, message: string) => {
    if (channel === own) {
      const isOver = message.endsWith(".");
      const watch = watched.get(isOver ? message.slice(0, -1) : message);
      if (!watch) return;
      watch.isNoted = !isOver;
      for (const listener of watch.listeners) listener();
    } else for (const listener of cancels) listener(message);
  });

  // After an outage: ioredis repeats only the subscriptions that once stood, and the notes at the tasks may be gone.
  subscriber.on("ready", () => {
    if (channels.size > 0) for (const channel of channels.keys()) channels.set(channel, subscribe(channel));
    for (const taskId of watched.keys()) note(taskId).catch(() => {});
  });

  const subscribe = async (channel: string) => (await tryRedis(subscriber, (r) => withTimeout(r.subscribe(channel)))) !== null;

  /** Subscribed once and for good. */
  async function hear(channel: string): Promise<void> {
    let standing = channels.get(channel);
    if (!standing) {
      standing = subscribe(channel);
      channels.set(channel, standing);
    }
    if (!(await standing) && channels.get(channel) === standing) channels.delete(channel);
  }

  const note = (taskId: string) => tryRedis(redis, (r) => Promise.all([r.sadd(watchersKey(taskId), own), r.expire(watchersKey(taskId), WATCH_SEC)]));
  const call = async (taskId: string, isOver: boolean) => void (await tryRedis(redis, (r) => r.aauCall(watchersKey(taskId), taskId, isOver ? "." : "")));

  return {
    taskEnded: (taskId) => call(taskId, true),
    taskProgressed: (taskId) => call(taskId, false),
    async cancelRequested(taskId) {
      await tryRedis(redis, (r) => Promise.all([r.set(cancelFlag(taskId), "1", "EX", CANCEL_FLAG_SEC), r.publish(CANCEL_CHANNEL, taskId)]));
    },
    isCancelRequested: async (taskId) => (await tryRedis(redis, (r) => r.exists(cancelFlag(taskId)))) === 1,
    async watchTask(taskId, onSignal) {
      const watch = watched.get(taskId) ?? { listeners: new Set(), isNoted: true };
      watched.set(taskId, watch);
      watch.listeners.add(onSignal);
      // In the order in which they are sent, so what the caller sends next comes after the note.
      await Promise.all([note(taskId), hear(own)]);
      return {
        async [Symbol.asyncDispose]() {
          watch.listeners.delete(onSignal);
          if (watch.listeners.size > 0 || watched.get(taskId) !== watch) return;
          watched.delete(taskId);
          if (watch.isNoted) await tryRedis(redis, (r) => r.srem(watchersKey(taskId), own));
        },
      };
    },
    async watchCancels(onCancel) {
      cancels.add(onCancel);
      await hear(CANCEL_CHANNEL);
      return {
        async [Symbol.asyncDispose]() {
          cancels.delete(onCancel);
        },
      };
    },
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
