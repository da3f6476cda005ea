/**
 * Group commit. Work that finds the database free goes at once; what arrives while statements are under way, or within some
 * milliseconds after one began, goes together in the next one: one round trip, one snapshot, one commit. So a quiet process waits for
 * nobody, and a busy one sends statements at a steady pace, the fuller the more there is to do.
 */
import { sqlState } from "./database.ts";

export interface BatchOptions<Item, Answer> {
  /** Runs one statement for all of these and answers in their order. */
  run(items: readonly Item[]): Promise<readonly Answer[]>;
  /** A few, so that batches form while others are at work, and one that waits for a lock does not hold up everybody. */
  statementsAtOnce: number;
  most: number;
  /** True for an item that would make everybody else's statement slow; it goes alone and at once. */
  isLarge?(item: Item): boolean;
}

/**
 * From the beginning of one statement to that of the next: eight tasks together cost the server a quarter of eight alone, so patience pays. It
 * grows with what the last statement gathered: a process with next to nothing to do hardly waits. Enough in the queue cut it short, and a full
 * batch waits for nothing.
 */
const PACE_MS = 6;
const LONGEST_PACE_MS = 24;
const ENOUGH = 8;

interface Waiting<Item, Answer> {
  item: Item;
  resolve(answer: Answer): void;
  reject(error: unknown): void;
}

/** An error leaves it open whether the item's work was done, exactly as a statement of its own would. */
export function inBatches<Item, Answer>({ run, statementsAtOnce, most, isLarge }: BatchOptions<Item, Answer>): (item: Item) => Promise<Answer> {
  const queue: Waiting<Item, Answer>[] = [];
  let underWay = 0;
  let beganAt = Number.NEGATIVE_INFINITY;
  let gathered = 0;
  let pause: { timer: NodeJS.Timeout; paceMs: number } | undefined;

  function serve(): void {
    while (underWay < statementsAtOnce && queue.length > 0) {
      const paceMs = queue.length >= most ? 0 : queue.length >= ENOUGH ? PACE_MS : Math.min(PACE_MS * gathered, LONGEST_PACE_MS);
      const restMs = beganAt + paceMs - performance.now();
      if (restMs > 0) {
        if (pause?.paceMs === paceMs) return;
        clearTimeout(pause?.timer);
        const timer = setTimeout(() => {
          pause = undefined;
          serve();
        }, restMs);
        pause = { timer, paceMs };
        return;
      }
      clearTimeout(pause?.timer);
      pause = undefined;
      beganAt = performance.now();
      const batch = queue.splice(0, most);
      gathered = batch.length;
      underWay += 1;
      together(batch).finally(() => {
        underWay -= 1;
        serve();
      });
    }
  }

  async function together(batch: readonly Waiting<Item, Answer>[]): Promise<void> {
    try {
      const answers = await run(batch.map(({ item }) => item));
      if (answers.length !== batch.length) throw new Error("a batch came back with another number of answers");
      for (const [place, { resolve }] of batch.entries()) resolve(answers[place] as Answer);
    } catch (error) {
      // The server has refused the statement, so nothing of it took place: one may be at fault, and the others go on without it.
      if (batch.length > 1 && isRefused(error)) await Promise.all(batch.map(({ item, resolve, reject }) => alone(item).then(resolve, reject)));
      // The answer is lost, or there is nobody else to blame: each finds out by its own row.
      else for (const { reject } of batch) reject(error);
    }
  }

  async function alone(item: Item): Promise<Answer> {
    const [answer, ...others] = await run([item]);
    if (answer === undefined || others.length > 0) throw new Error("a batch came back with another number of answers");
    return answer;
  }

  return (item) => {
    if (isLarge?.(item)) return alone(item);
    return new Promise((resolve, reject) => {
      queue.push({ item, resolve, reject });
      serve();
    });
  };
}

/** One queue for each pool, made when it is first used. */
export function perPool<Pool extends object, Item, Answer>(open: (pool: Pool) => (item: Item) => Promise<Answer>): (pool: Pool, item: Item) => Promise<Answer> {
  const queues = new WeakMap<Pool, (item: Item) => Promise<Answer>>();
  return (pool, item) => {
    let queue = queues.get(pool);
    if (!queue) {
      queue = open(pool);
      queues.set(pool, queue);
    }
    return queue(item);
  };
}

/** True when the server itself undid the statement; a lost connection or an ending server leaves it open. */
function isRefused(error: unknown): boolean {
  const state = sqlState(error) ?? sqlState(error instanceof Error ? error.cause : null);
  return state !== null && !/^(08|57)/.test(state);
}
