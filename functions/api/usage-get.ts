import * as v from "valibot";
import { Environment } from "../../shared/access/caller.ts";
import { Refusal } from "../../shared/errors.ts";
import { http, ok } from "../../shared/host/declare.ts";
import { GROUPS, type Group, reportUsage, UsageReport } from "../../shared/metering/usage-report.ts";

const DAY_MS = 86_400_000;
const MAX_DAYS = 366;
const Day = v.pipe(
  v.string(),
  v.isoDate("must be a day such as 2026-11-30"),
  v.check((day) => isDay(day), "there is no such day"),
);
const Groups = v.pipe(
  v.string(),
  v.metadata({ examples: ["plugin,day"] }),
  v.description("What to add up by: `plugin`, `day`, `key` and `model`, with commas between."),
  v.transform((text) => text.split(",")),
  v.array(v.picklist(GROUPS, "must be plugin, day, key or model, with commas between")),
  v.transform((groups): Group[] => [...new Set(groups)]),
);

/** What the tenant has used up to this moment, and where its quotas stand with what runs now. Days are in UTC. */
export default http({
  name: "usage-get",
  summary: "Read usage by plugin, day, key and model, and where the quotas stand.",
  route: "GET /v1/usage",
  scope: "billing:read",
  needs: ["db", "clock"],
  query: v.strictObject({
    from: v.optional(v.pipe(Day, v.description("The first day; the first of this month unless given."))),
    to: v.optional(v.pipe(Day, v.description("The last day, included; today unless given."))),
    group_by: v.optional(Groups, "plugin"),
    environment: v.optional(Environment, "live"),
  }),
  replies: { 200: UsageReport },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ query: { from, to, group_by, environment }, caller, db, clock }) {
    const today = clock().toISOString().slice(0, 10);
    const last = to ?? today;
    const first = from ?? `${last.slice(0, 8)}01`;
    const days = (Date.parse(last) - Date.parse(first)) / DAY_MS + 1;
    if (days < 1 || days > MAX_DAYS) throw new Refusal("INVALID_INPUT", { message: `to must not be before from, and at most ${MAX_DAYS} days can be read at a time.` });
    return ok(await reportUsage(db, caller.tenantId, { environment, from: first, to: last, by: group_by }));
  },
});

/** 2026-02-30 has the form of a day. */
function isDay(text: string): boolean {
  const at = new Date(text);
  return !Number.isNaN(at.getTime()) && at.toISOString().startsWith(text);
}
