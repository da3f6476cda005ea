/** Tasks in a steady flow while faults come at random, all from one seed. */
import { setTimeout as delay } from "node:timers/promises";
import type { Job } from "./client.ts";
import { LEASE_MS, type ProcessName, QUOTA } from "./platform.ts";
import type { LostReply } from "./postgres-proxy.ts";
import type { Random } from "./random.ts";
import { type RoundTools, untilAtRest } from "./rounds.ts";

const KILLED = [
  "bridge",
  "task-execute-1",
  "task-execute-2",
  "plugin",
  "llm-gateway",
  "bridge",
  "task-execute-1",
  "plugin",
  "task-submit",
  "scope-gateway",
  "ticket-processor",
  "wake",
  "webhook-deliver",
] as const;
const STATEMENTS = ["admit_tasks", "claim_tasks", "renew_lease", "settle_tasks", "hand_back_task", "open_llm_call", "close_llm_call", "record_step", "create_tickets"] as const;
const VARIANTS: readonly [LostReply, LostReply] = ["committed", "lost"];
const KINDS = ["kill", "kill", "kill", "kill", "redis crash", "redis flush", "zombie", "zombie", "reply", "reply", "reply", "reply"] as const;

export interface Chaos {
  tasks: number;
  /** Over which the submits are spread. */
  spreadMs: number;
}

export async function runChaos(tools: RoundTools, { tasks, spreadMs }: Chaos): Promise<void> {
  const { client, random } = tools;
  const jobs = Array.from({ length: tasks }, (_, i) => jobOf(tools, i));
  const flow = new AbortController();
  const faults = injectFaults(tools, flow.signal);
  const submitted = jobs.map(async (job, i) => {
    await delay(Math.round((i * spreadMs) / tasks) + random.between(0, 400));
    await client.run(job);
  });
  await delay(spreadMs);
  flow.abort();
  await faults;
  tools.platform.postgres.calm();
  await Promise.all(submitted);
  await untilAtRest(tools);
}

function jobOf({ platform, random, times }: RoundTools, i: number): Job {
  const dice = random.next();
  const base: Job = {
    marker: `chaos-${i}`,
    apiKey: platform.keys.unlimited,
    deadlineMs: times.deadlineMs,
    slowMs: random.next() < 0.2 ? random.between(200, 1_500) : 0,
    isTwin: random.next() < 0.1,
  };
  // Twice as many for the tenant with a quota as it may have.
  if (i < QUOTA * 4 && i % 2 === 0) return { ...base, apiKey: platform.keys.limited };
  if (dice < 0.12) return { ...base, cancelAfterMs: random.between(0, 2_500) };
  if (dice < 0.17) return { ...base, deadlineMs: random.between(3_000, 9_000), slowMs: random.between(0, 3_000) };
  if (dice < 0.2) return { ...base, refusal: random.pick(["unknown plugin", "empty command"]) };
  if (dice < 0.4) return { ...base, isPlan: true, cancelAfterMs: dice < 0.23 ? random.between(0, 3_500) : undefined };
  return base;
}

async function injectFaults(tools: RoundTools, signal: AbortSignal): Promise<void> {
  const { random } = tools;
  const lasting: Promise<void>[] = [];
  while (!signal.aborted) {
    await delay(random.between(700, 2_200), undefined, { signal }).catch(() => {});
    if (signal.aborted) break;
    lasting.push(inject(tools, random));
  }
  await Promise.all(lasting);
}

/** Resolves when what was taken away is back. */
async function inject({ platform, say }: RoundTools, random: Random): Promise<void> {
  const kind = random.pick(KINDS);
  switch (kind) {
    case "kill": {
      const name: ProcessName = random.pick(KILLED);
      say(`SIGKILL ${name}`);
      return platform.processes[name].kill();
    }
    case "redis crash": {
      const downMs = random.between(0, 1_500);
      say(`SIGKILL redis, its data lost, back after ${downMs} ms`);
      return platform.redis.crash(downMs);
    }
    case "redis flush":
      say("FLUSHALL");
      await platform.redis.flush().catch(() => {});
      return;
    case "zombie": {
      const victim = platform.processes[random.pick(["task-execute-1", "task-execute-2"] as const)];
      const stopMs = LEASE_MS + random.between(500, 3_000);
      if (!victim.isUp || platform.processes["task-execute-1"].isStopped || platform.processes["task-execute-2"].isStopped) return;
      say(`SIGSTOP ${victim.name} for ${stopMs} ms`);
      victim.suspend();
      await delay(stopMs);
      return victim.resume();
    }
    case "reply": {
      const statement = random.pick(STATEMENTS);
      const variant = random.pick(VARIANTS);
      say(`the answer to the next ${statement} is lost (${variant === "committed" ? "committed" : "not committed"})`);
      void platform.postgres.loseNext(statement, variant);
    }
  }
}
