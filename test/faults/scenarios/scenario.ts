/** A fault of RELIABILITY.md 1.1: it is armed, tasks run into it, it is healed, and each task says how it has to end. */
import { setTimeout as delay } from "node:timers/promises";
import type { Job } from "../client.ts";
import type { Invariant } from "../invariants.ts";
import { type RoundTools, untilAtRest } from "../rounds.ts";

export interface Scenario {
  id: string;
  title: string;
  /** In the short form too. */
  isShort?: boolean;
  /** Share of the tasks; 1 unless said, 0 for one that knows itself how many it wants. */
  weight?: number;
  run(tools: ScenarioTools, count: number): Promise<void>;
}

export interface ScenarioTools extends RoundTools {
  /** Something that has to be so, for the auditor. */
  sure(what: string, isSo: boolean, invariant?: Invariant): void;
  /** Submits so many tasks of the scenario, `inFlight` at a time; resolves when the callers know their ends. */
  send(count: number, make?: (index: number) => Partial<Job>, inFlight?: number): Promise<void>;
}

const IN_FLIGHT = 12;

export function toolsOf(tools: RoundTools, { id }: Scenario): ScenarioTools {
  const prefix = id.toLowerCase().replace("-", "");
  let sent = 0;
  return {
    ...tools,
    sure: (what, isSo, invariant = "D") => void tools.facts.push({ invariant, what: `${id}: ${what}`, isSo }),
    async send(count, make = () => ({}), inFlight = IN_FLIGHT) {
      const jobs = Array.from({ length: count }, (_, i): Job => {
        const marker = `${prefix}-${sent++}`;
        return { marker, apiKey: tools.platform.keys.unlimited, deadlineMs: tools.times.deadlineMs, deserves: { status: ["success"] }, ...make(i) };
      });
      const work = async () => {
        for (let job = jobs.shift(); job; job = jobs.shift()) await tools.client.run(job);
      };
      await Promise.all(Array.from({ length: Math.min(inFlight, count) }, work));
    },
  };
}

/** Lets the work run while `fault` comes and goes; ends when both are over and every task has ended. */
export async function during(tools: RoundTools, work: Promise<void>, fault: () => Promise<unknown>): Promise<void> {
  await delay(300);
  await fault();
  await work;
  await untilAtRest(tools);
}

export { delay };
