/**
 * The crash points of RELIABILITY.md 1.2, each with the one fault that it stands for. Some steps cannot be hit from outside: s2, s3 and s4
 * lie inside the one statement `admit_tasks`, so s5 (its answer is lost, before or after it took place) stands for all of them; p5 is
 * impossible by order, and the auditor compares rows with objects instead.
 */

import type { ProcessName } from "./platform.ts";
import type { LostReply } from "./postgres-proxy.ts";

export interface Point {
  id: string;
  /** SIGKILL at the first hit of a failpoint; an answer of PostgreSQL that never arrives; or half a reply, and then SIGKILL. */
  fault:
    | { kind: "kill"; process: ProcessName; failpoint: string }
    | { kind: "reply"; statement: string; variant: LostReply }
    | { kind: "torn reply"; method: string; process: ProcessName }
    | { kind: "race" };
  /** Failpoints of other processes that make the point reachable; they slow or fail, and never kill. */
  along?: Partial<Record<ProcessName, string>>;
  /** The callers cancel what they submitted. */
  isCancelled?: boolean;
  slowMs?: number;
  /** Not in the short form. */
  isLong?: boolean;
  /** Its tasks are plans: what the probe finds goes on to ticket-processor. */
  isPlan?: boolean;
}

const kill = (id: string, process: ProcessName, failpoint: string, more: Partial<Point> = {}): Point => ({ id, fault: { kind: "kill", process, failpoint }, ...more });
const reply = (id: string, statement: string, more: Partial<Point> = {}): Point[] =>
  (["committed", "lost"] as const).map((variant) => ({ id, fault: { kind: "reply", statement, variant }, ...more }));

/** Half of the submits fail after their commit and before the ring, so that `wake` has to ring. */
const unrung = { along: { "task-submit": "submit.after_commit:throw@0.5" } } satisfies Partial<Point>;
const cancelled = { isCancelled: true, slowMs: 600 } satisfies Partial<Point>;
const planned = { isPlan: true } satisfies Partial<Point>;

export const POINTS: readonly Point[] = [
  kill("s1", "task-submit", "submit.after_validate"),
  kill("s1", "task-submit", "submit.before_admit"),
  ...reply("s5", "admit_tasks"),
  // Submits that wait together are admitted together, and lose their answer together.
  ...reply("s5", "admit_tasks", { along: { "task-submit": "submit.before_admit:delay=400" } }),
  kill("s6", "task-submit", "submit.after_commit"),
  kill("s7", "task-submit", "submit.after_ring"),
  { id: "s8", fault: { kind: "torn reply", method: "POST", process: "task-submit" } },
  kill("e1", "wake", "wake.after_take", unrung),
  kill("e2", "wake", "wake.after_ring", unrung),
  kill("b1", "bridge", "bridge.after_read"),
  kill("b2", "bridge", "bridge.after_answer"),
  kill("b3", "bridge", "bridge.after_ack"),
  kill("c1", "task-execute-1", "claim.before"),
  kill("c2", "task-execute-1", "claim.after_commit"),
  ...reply("c2", "claim_tasks"),
  kill("c3", "task-execute-1", "lease.after_beat", { slowMs: 800 }),
  ...reply("c3", "renew_lease", { slowMs: 800 }),
  kill("x0", "task-execute-1", "execute.before_plugin"),
  kill("x1", "llm-gateway", "llm.started"),
  ...reply("x1", "open_llm_call"),
  kill("x2", "llm-gateway", "llm.mid_stream"),
  kill("x3", "llm-gateway", "llm.before_settle"),
  ...reply("x3", "close_llm_call"),
  kill("x4", "llm-gateway", "llm.after_settle"),
  kill("x4", "task-execute-1", "step.before_record", planned),
  ...reply("x4", "record_step", planned),
  kill("x4", "task-execute-1", "step.after_record", planned),
  kill("x5", "plugin", "plugin.after_tool"),
  kill("x5", "scope-gateway", "tickets.after_create", planned),
  ...reply("x5", "create_tickets", planned),
  kill("x6", "plugin", "plugin.in_node"),
  kill("p1", "task-execute-1", "settle.before"),
  ...reply("p2", "settle_tasks"),
  kill("p3", "task-execute-1", "settle.after_commit"),
  kill("p4", "scope-gateway", "artifact.after_upload"),
  // Deliveries are rows of the transaction that ends a task, so p1 to p3 are w1 too; here nobody is rung for them.
  kill("w1", "task-execute-2", "settle.after_commit"),
  kill("w2", "webhook-deliver", "webhook.before_post", { isLong: true }),
  kill("w3", "webhook-deliver", "webhook.after_answer"),
  ...reply("w3", "finish_webhook_attempt", { isLong: true }),
  kill("w4", "webhook-deliver", "webhook.after_finish", { isLong: true }),
  kill("k1", "task-cancel", "cancel.after_flag", cancelled),
  kill("k1", "task-cancel", "cancel.after_signal", cancelled),
  ...reply("k1", "cancel_task", cancelled),
  { id: "k2", fault: { kind: "race" }, along: { "task-execute-1": "settle.before:delay=300", "task-execute-2": "settle.before:delay=300" }, isCancelled: true, slowMs: 200 },
];

export function describe({ id, fault }: Point): string {
  if (fault.kind === "kill") return `${id} ${fault.process}: SIGKILL at ${fault.failpoint}`;
  if (fault.kind === "reply") return `${id} PostgreSQL's answer to ${fault.statement} is lost (${fault.variant === "committed" ? "committed" : "not committed"})`;
  if (fault.kind === "torn reply") return `${id} ${fault.process}: half a reply, then SIGKILL`;
  return `${id} cancel against a settlement on its way`;
}

/** The process that a point needs for itself. */
function seats({ fault, along = {} }: Point): string[] {
  const own = fault.kind === "kill" || fault.kind === "torn reply" ? [fault.process] : fault.kind === "reply" ? [fault.statement] : [];
  return [...own, ...Object.keys(along)];
}

/** Rounds of points that do not share a process, for the short form: each round costs about as much as one point. */
export function inRounds(points: readonly Point[]): Point[][] {
  const rounds: { points: Point[]; taken: Set<string>; isCancelled: boolean; isPlan: boolean }[] = [];
  for (const point of points) {
    const wanted = seats(point);
    const { isCancelled = false, isPlan = false } = point;
    const free = rounds.find((candidate) => candidate.isCancelled === isCancelled && candidate.isPlan === isPlan && wanted.every((seat) => !candidate.taken.has(seat)));
    const round = free ?? { points: [], taken: new Set(), isCancelled, isPlan };
    if (!free) rounds.push(round);
    round.points.push(point);
    for (const seat of wanted) round.taken.add(seat);
  }
  return rounds.map(({ points: own }) => own);
}
