/** What the bench asks its client to do, and what it answers. */
import * as v from "valibot";

export const LoadJob = v.object({
  url: v.string(),
  method: v.picklist(["GET", "POST"]),
  connections: v.number(),
  /** Requests in all; without it the client goes on for `durationMs` and then finishes what is open. */
  count: v.optional(v.number()),
  durationMs: v.optional(v.number()),
  /** Taken in turn. */
  requests: v.array(v.object({ path: v.string(), headers: v.record(v.string(), v.string()), body: v.optional(v.string()) })),
  /** A request counts as answered when its status is this and its body contains the text. */
  expect: v.object({ status: v.number(), contains: v.optional(v.string()) }),
  /** When it is not done with its answer: by polling its location, or by a stream of results. */
  untilDone: v.optional(v.variant("by", [v.object({ by: v.literal("poll"), url: v.string() }), v.object({ by: v.literal("stream"), redisUrl: v.string(), stream: v.string() })])),
});
export type LoadJob = v.InferOutput<typeof LoadJob>;

export const LoadReport = v.object({
  /** As expected, and done where the job says so. */
  good: v.number(),
  /** Everything else, by status or error. */
  bad: v.record(v.string(), v.number()),
  seconds: v.number(),
  /** Milliseconds to the answer, sorted. */
  answered: v.array(v.number()),
  /** Milliseconds to the end of the task, sorted; empty unless the job waits for it. */
  done: v.array(v.number()),
  /** Share of one core that the client itself used. */
  clientCpu: v.number(),
});
export type LoadReport = v.InferOutput<typeof LoadReport>;
