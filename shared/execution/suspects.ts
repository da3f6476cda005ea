/**
 * Suspects take turns. When a plugin's process ends, every execution that it held is cut off, and any of them may have ended it. Called again
 * together, they would be cut off together, until the good ones have spent their tries on the bad one. One at a time, it ends only itself.
 *
 * A turn is a key in Redis that nobody holds for long: executions that take minutes would otherwise wait for each other past their deadlines.
 */
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import type { Redis } from "ioredis";
import type { TaskId } from "../ids.ts";
import { tryRedis } from "../redis/availability.ts";
import type { PluginVersion } from "./circuit-breaker.ts";
import type { Claim } from "./claim-task.ts";
import type { Failure } from "./step-failure.ts";

/** A turn's length at most. */
const TURN_MS = 10_000;
/** How long one is waited for. A dozen of them, with the process starting again behind each that ends it, take most of it. */
const PATIENCE_MS = 60_000;
const ASK_AGAIN_MS = 100;

const GIVE_BACK = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/** A task's later attempts know that it is one. */
const REMEMBER_SEC = 3_600;

export const turnKey = ({ plugin, version }: PluginVersion): string => `turn:${plugin}:${version}`;
const suspectKey = (task: TaskId): string => `suspect:${task}`;

export interface Suspicion extends AsyncDisposable {
  /** Waits for this execution's turn, if it is suspected and has none: at most so long, and not beyond the signal. Never rejects. */
  takeTurn(patienceMs: number, signal: AbortSignal): Promise<void>;
  /** What became of a call. The turn is kept while the plugin cannot be reached: its process is starting again, and all others would spend their tries on that. */
  note(failure: Pick<Failure, "isCutOff" | "isUnreached">): Promise<void>;
}

/** Of one execution; it ends with the turn given back. Without Redis nobody is suspected. */
export async function suspicionOf(redis: Redis, of: PluginVersion, { taskId, attempt }: Pick<Claim, "taskId" | "attempt">): Promise<Suspicion> {
  const token = randomUUID();
  let isSuspect = attempt > 1 && (await tryRedis(redis, (r) => r.exists(suspectKey(taskId)))) === 1;
  let hasTurn = false;

  async function giveBack(): Promise<void> {
    if (hasTurn) await tryRedis(redis, (r) => r.eval(GIVE_BACK, 1, turnKey(of), token));
    hasTurn = false;
  }

  return {
    async takeTurn(patienceMs, signal) {
      if (!isSuspect || hasTurn) return;
      const until = performance.now() + Math.min(patienceMs, PATIENCE_MS);
      while (!signal.aborted && performance.now() < until) {
        const answer = await tryRedis(redis, (r) => r.set(turnKey(of), token, "PX", TURN_MS, "NX").then((set) => ({ isMine: set === "OK" })));
        hasTurn = answer?.isMine ?? false;
        if (answer === null || hasTurn) return;
        await delay(ASK_AGAIN_MS * (0.5 + Math.random()), undefined, { signal }).catch(() => {});
      }
    },
    async note({ isCutOff, isUnreached }) {
      if (isCutOff && !isSuspect) {
        isSuspect = true;
        await tryRedis(redis, (r) => r.set(suspectKey(taskId), "1", "EX", REMEMBER_SEC));
      }
      if (!isUnreached) await giveBack();
    },
    [Symbol.asyncDispose]: giveBack,
  };
}
