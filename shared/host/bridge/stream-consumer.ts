/**
 * Reads one stream through the consumer group and delivers its entries at least once. It reads only as many as it has free
 * slots, keeps its claim while a delivery is open, takes over from consumers that are gone, and acknowledges only what is done,
 * scheduled again, or buried.
 */
import { setMaxListeners } from "node:events";
import type { Redis } from "ioredis";
import type { Agent } from "undici";
import { failpoint } from "../../failpoint.ts";
import { fullJitterMs } from "../../retry-delay.ts";
import type { Log } from "../../telemetry/log.ts";
import type { Spans } from "../../telemetry/spans.ts";
import { childOf, parentOf, traceparentOf } from "../../telemetry/trace.ts";
import { deliver, eventId, type Target, type Verdict } from "./delivery.ts";
import {
  acknowledge,
  bury,
  type Entry,
  ensureGroup,
  forgetIdleConsumers,
  isMissingGroup,
  readNew,
  releaseClaims,
  renewClaims,
  requeueDue,
  scheduleRetry,
  takeOver,
} from "./stream-commands.ts";

export interface ConsumerOptions {
  stream: string;
  consumer: string;
  target: Target;
  maxInFlight: number;
  /** For commands; never blocks. */
  redis: Redis;
  /** For blocking reads; this consumer's own. */
  blocking: Redis;
  agent: Agent;
  log: Log;
  /** Null where no collector is set. */
  spans?: Spans | null;
  /** Called before an entry is buried: fails the work that it rang for. */
  onDead(entry: Entry, reason: string): Promise<void>;
  onVerdict(verdict: Verdict["verdict"]): void;
}

export interface StreamConsumer {
  readonly stream: string;
  readonly inFlight: number;
  /** Stops reading, waits for open deliveries, then hangs up and leaves what is left to the next bridge. */
  stop(graceMs: number): Promise<void>;
}

const MAX_DELIVERIES = 5;
const READ_AT_ONCE = 200;
const BLOCK_MS = 2_000;
/** While this many are open, entries are let gather for a moment: one read brings several. */
const BUSY = 8;
const GATHER_MS = 4;
const TAKE_OVER_IDLE_MS = 30_000;
const RENEW_MS = 10_000;
const TAKE_OVER_EVERY_MS = 5_000;
const REQUEUE_EVERY_MS = 250;
const TIDY_EVERY_MS = 300_000;

export function startStreamConsumer(options: ConsumerOptions): StreamConsumer {
  const { stream, consumer, redis, blocking, maxInFlight, log } = options;
  const open = new Map<string, Promise<void>>();
  const hangUp = new AbortController();
  // Every delivery that is open listens; dozens are no leak.
  setMaxListeners(0, hangUp.signal);
  let stopping = false;
  let slotFreed = () => {};
  // Halved when the function says that it has too much, raised again with every success.
  let limit = maxInFlight;

  let leaving: { ids: string[]; sent: Promise<void> } | undefined;

  /** Entries that are done in one turn of the event loop leave the stream together. */
  function acknowledged(id: string): Promise<void> {
    if (!leaving) {
      const ids: string[] = [];
      const sent = new Promise((resolve) => setImmediate(resolve)).then(() => {
        leaving = undefined;
        return acknowledge(redis, stream, ids);
      });
      leaving = { ids, sent };
    }
    leaving.ids.push(id);
    return leaving.sent;
  }

  async function work(entry: Entry): Promise<void> {
    FAILPOINT: await failpoint("bridge.after_read");
    const traceparent = childOf(traceparentOf(entry.fields.traceparent));
    const startedAtMs = Date.now();
    const verdict = await deliver(options.agent, stream, entry, options.target, traceparent, hangUp.signal);
    FAILPOINT: await failpoint("bridge.after_answer");
    options.onVerdict(verdict.verdict);
    options.spans?.ended({
      name: `deliver ${stream}`,
      kind: "producer",
      traceparent,
      parent: parentOf(entry.fields.traceparent),
      startedAtMs,
      durationMs: Date.now() - startedAtMs,
      attributes: {
        "messaging.system": "redis",
        "messaging.destination.name": stream,
        "messaging.message.id": eventId(stream, entry),
        "aau.verdict": verdict.verdict,
        "aau.attempt": Number(entry.fields.n ?? "1"),
      },
      isError: verdict.verdict !== "done",
    });
    if (verdict.verdict === "aborted") return;
    if (verdict.verdict === "done") {
      limit = Math.min(maxInFlight, limit + 1);
      await acknowledged(entry.id);
      FAILPOINT: await failpoint("bridge.after_ack");
      return;
    }
    if (verdict.verdict === "retry" && verdict.isOverload) limit = Math.max(1, Math.ceil(limit / 2));
    const delivered = Number(entry.fields.n ?? "1");
    if (verdict.verdict === "dead" || (verdict.counts && delivered >= MAX_DELIVERIES)) {
      log("error", "event buried", { stream, event_id: eventId(stream, entry), attempt: delivered, reason: verdict.reason });
      // The work fails before its event goes: a crash between the two buries it again.
      await options.onDead(entry, verdict.reason);
      await bury(redis, stream, entry, verdict.reason);
      return;
    }
    const delayMs = verdict.retryAfterMs ?? 250 + fullJitterMs(delivered, { baseMs: 1_000, capMs: 60_000 });
    const fields = { ...entry.fields, id: eventId(stream, entry), at: entry.fields.at ?? entry.id.split("-")[0] ?? "", n: String(delivered + (verdict.counts ? 1 : 0)) };
    log("warn", "event delivered again", { stream, event_id: fields.id, attempt: delivered, reason: verdict.reason, duration_ms: Math.round(delayMs) });
    await scheduleRetry(redis, stream, { id: entry.id, fields }, delayMs);
  }

  function begin(entry: Entry): void {
    if (open.has(entry.id)) return;
    const done = work(entry)
      // Redis is away: the entry stays pending and is taken over later.
      .catch((error: unknown) => log("warn", "event left pending", { stream, event_id: entry.id, error }))
      .finally(() => {
        open.delete(entry.id);
        slotFreed();
      });
    open.set(entry.id, done);
  }

  async function read(): Promise<void> {
    let failures = 0;
    while (!stopping) {
      const free = limit - open.size;
      if (free <= 0) {
        await new Promise<void>((resolve) => {
          slotFreed = resolve;
        });
        continue;
      }
      if (open.size >= BUSY) await sleep(GATHER_MS, hangUp.signal);
      try {
        for (const entry of await readNew(blocking, stream, consumer, Math.min(free, READ_AT_ONCE), BLOCK_MS)) begin(entry);
        failures = 0;
      } catch (error) {
        if (stopping) return;
        failures += 1;
        if (isMissingGroup(error)) await ensureGroup(redis, stream).catch(() => {});
        else if (failures === 1) log("warn", "stream cannot be read", { stream, error });
        await sleep(Math.min(100 * 2 ** Math.min(failures, 5), 2_000), hangUp.signal);
      }
    }
  }

  /** Housekeeping goes on through failures: Redis may be away. */
  function every(ms: number, task: () => Promise<unknown>): NodeJS.Timeout {
    let running = false;
    return setInterval(() => {
      if (running) return;
      running = true;
      task()
        .catch(async (error: unknown) => {
          if (isMissingGroup(error)) await ensureGroup(redis, stream).catch(() => {});
        })
        .finally(() => {
          running = false;
        });
    }, ms);
  }

  const reading = ensureGroup(redis, stream)
    .catch(() => {})
    .then(read);
  const takeOverIdle = async () => {
    const free = limit - open.size;
    if (free > 0) for (const entry of await takeOver(redis, stream, consumer, TAKE_OVER_IDLE_MS, Math.min(free, READ_AT_ONCE))) begin(entry);
  };
  const renewal = every(RENEW_MS, () => renewClaims(redis, stream, consumer, [...open.keys()]));
  const readers = [
    every(TAKE_OVER_EVERY_MS, takeOverIdle),
    every(REQUEUE_EVERY_MS, () => requeueDue(redis, stream, 100)),
    every(TIDY_EVERY_MS, () => forgetIdleConsumers(redis, stream, consumer)),
  ];

  return {
    stream,
    get inFlight() {
      return open.size;
    },
    async stop(graceMs) {
      stopping = true;
      for (const timer of readers) clearInterval(timer);
      slotFreed();
      const all = Promise.allSettled([...open.values()]);
      const patience = new AbortController();
      await Promise.race([all, sleep(graceMs, patience.signal)]);
      patience.abort();
      const left = [...open.keys()];
      hangUp.abort();
      await Promise.allSettled([...open.values()]);
      clearInterval(renewal);
      await releaseClaims(redis, stream, consumer, left).catch(() => {});
      blocking.disconnect();
      await reading.catch(() => {});
    },
  };
}

function sleep(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    signal.addEventListener("abort", end);
  });
}
