import { describe, expect, it, vi } from "vitest";
import { inBatches } from "../../shared/db/in-batches.ts";

/** The server's refusal of a whole statement, and an answer that never came. */
const refused = () => Object.assign(new Error("22P05"), { code: "22P05" });
const lost = () => Object.assign(new Error("08006"), { code: "08006" });

describe("work that goes together", () => {
  it("gets each its own answer, in fewer statements than there is work", async () => {
    const sizes: number[] = [];
    const run = async (items: readonly number[]) => {
      sizes.push(items.length);
      return items.map((n) => 2 * n);
    };
    const double = inBatches<number, number>({ statementsAtOnce: 1, most: 8, run });
    expect(await Promise.all(Array.from({ length: 20 }, (_, n) => double(n)))).toEqual(Array.from({ length: 20 }, (_, n) => 2 * n));
    expect(sizes).toEqual([1, 8, 8, 3]);
  });

  it("goes as soon as a batch is full, also when a pause for more has begun", async () => {
    vi.useFakeTimers();
    try {
      const sizes: number[] = [];
      const run = async (items: readonly number[]) => {
        sizes.push(items.length);
        return [...items];
      };
      const same = inBatches<number, number>({ statementsAtOnce: 2, most: 8, run });
      await same(0);
      const few = [1, 2, 3].map(same);
      expect(sizes).toEqual([1]);
      const more = [4, 5, 6, 7, 8].map(same);
      expect(sizes).toEqual([1, 8]);
      await Promise.all([...few, ...more]);
    } finally {
      vi.useRealTimers();
    }
  });

  it("waits for company the longer, the more the last statement had, and hardly at all after one alone", async () => {
    vi.useFakeTimers();
    try {
      let sent = 0;
      const run = async (items: readonly number[]) => {
        sent += items.length;
        return [...items];
      };
      const same = inBatches<number, number>({ statementsAtOnce: 2, most: 8, run });
      const all = [same(0), same(1)];
      await vi.advanceTimersByTimeAsync(6);
      expect(sent).toBe(2);
      await vi.advanceTimersByTimeAsync(1_000);
      all.push(...[2, 3, 4, 5].map(same));
      await vi.advanceTimersByTimeAsync(6);
      expect(sent).toBe(6);
      all.push(same(6));
      await vi.advanceTimersByTimeAsync(12);
      expect(sent).toBe(6);
      await vi.advanceTimersByTimeAsync(12);
      expect(sent).toBe(7);
      await Promise.all(all);
    } finally {
      vi.useRealTimers();
    }
  });

  it("fails for the one that is at fault, and is done for the others", async () => {
    const run = async (items: readonly number[]) => {
      if (items.includes(5)) throw refused();
      return [...items];
    };
    const same = inBatches<number, number>({ statementsAtOnce: 1, most: 8, run });
    const answers = await Promise.allSettled(Array.from({ length: 8 }, (_, n) => same(n)));
    expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 8 }, (_, n) => (n === 5 ? "rejected" : "fulfilled")));
  });

  it("is not sent again when its answer is lost: nobody knows whether it was done", async () => {
    let sent = 0;
    const run = async (items: readonly number[]) => {
      sent += items.length;
      throw lost();
    };
    const never = inBatches<number, number>({ statementsAtOnce: 1, most: 8, run });
    const answers = await Promise.allSettled(Array.from({ length: 8 }, (_, n) => never(n)));
    expect(answers.every(({ status }) => status === "rejected")).toBe(true);
    expect(sent).toBe(8);
  });

  it("does not wait for what is large", async () => {
    const sizes: number[] = [];
    const run = async (items: readonly number[]) => {
      sizes.push(items.length);
      return [...items];
    };
    const same = inBatches<number, number>({ statementsAtOnce: 1, most: 8, isLarge: (n) => n > 100, run });
    await Promise.all([1, 2, 3, 1_000].map(same));
    expect(sizes).toEqual([1, 1, 2]);
  });
});
