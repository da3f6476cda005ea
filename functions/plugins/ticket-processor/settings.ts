/** The tenant's `plugin_config`. */
import * as v from "valibot";
import { PRIORITIES } from "./ticket.ts";

const Word = v.pipe(v.string(), v.minLength(1), v.maxLength(100));
const oneOrMore = <Item extends v.GenericSchema>(item: Item) => v.union([item, v.pipe(v.array(item), v.minLength(1), v.maxLength(50))]);
const Hours = v.pipe(v.number(), v.minValue(0.25), v.maxValue(2000));
const ClockTime = v.pipe(v.string(), v.regex(/^(?:[01]\d|2[0-3]):[0-5]\d$/, "must be a time such as 09:00"));

/** All conditions of a match hold; of several values, one. */
const Match = v.strictObject({
  component: v.optional(oneOrMore(Word)),
  label: v.optional(oneOrMore(Word)),
  keyword: v.optional(oneOrMore(Word)),
  severity: v.optional(oneOrMore(v.picklist(PRIORITIES))),
});
const Rule = v.pipe(
  v.strictObject({ match: Match, assignee: v.optional(Word), team: v.optional(Word) }),
  v.check((rule) => rule.assignee !== undefined || rule.team !== undefined, "a rule names an assignee or a team"),
);
export type Rule = v.InferOutput<typeof Rule>;

const Github = v.strictObject({
  repository: v.pipe(v.string(), v.regex(/^[A-Za-z0-9][\w.-]{0,99}\/[A-Za-z0-9_][\w.-]{0,99}$/, "must be owner/name")),
  /** Of a GitHub Enterprise server. */
  api_url: v.optional(v.pipe(v.string(), v.maxLength(500))),
});
const Jira = v.strictObject({
  base_url: v.pipe(v.string(), v.maxLength(500)),
  email: v.pipe(v.string(), v.email(), v.maxLength(254)),
  project: v.pipe(v.string(), v.regex(/^[A-Z][A-Z0-9_]{1,19}$/, "must be a project's key such as OPS")),
  issue_type: v.optional(v.pipe(v.string(), v.minLength(1), v.maxLength(60)), "Task"),
});

const BusinessHours = v.pipe(
  v.strictObject({
    timezone: v.optional(
      v.pipe(
        v.string(),
        v.check((zone) => isTimeZone(zone), "must be a time zone such as Europe/Berlin"),
      ),
      "UTC",
    ),
    /** 1 is Monday. */
    days: v.optional(v.pipe(v.array(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(7))), v.minLength(1), v.maxLength(7)), [1, 2, 3, 4, 5]),
    start: v.optional(ClockTime, "09:00"),
    end: v.optional(ClockTime, "17:00"),
  }),
  v.check(({ start, end }) => minutesOf(end) - minutesOf(start) >= 60, "must end at least an hour later than they start"),
);
export type BusinessHours = v.InferOutput<typeof BusinessHours>;

/** Since midnight. */
export const minutesOf = (time: string): number => Number(time.slice(0, 2)) * 60 + Number(time.slice(3));

function isTimeZone(zone: string): boolean {
  try {
    new Intl.DateTimeFormat("en", { timeZone: zone });
    return true;
  } catch {
    return false;
  }
}

export const Settings = v.strictObject({
  tracker: v.optional(v.picklist(["built-in", "github", "jira"]), "built-in"),
  github: v.optional(Github),
  jira: v.optional(Jira),
  /** The first that matches decides. */
  rules: v.optional(v.pipe(v.array(Rule), v.maxLength(200)), []),
  default_assignee: v.optional(Word),
  default_team: v.optional(Word),
  /** Hours from a ticket's creation to its due time. */
  sla_hours: v.optional(v.strictObject({ critical: v.optional(Hours, 4), high: v.optional(Hours, 24), medium: v.optional(Hours, 72), low: v.optional(Hours, 168) }), {}),
  /** With it, only these hours count. */
  business_hours: v.optional(BusinessHours),
});
export type Settings = v.InferOutput<typeof Settings>;

/** The SDK has read the configuration with `Settings` before any node runs; this gives it its type back. */
export function settingsOf(config: Readonly<Record<string, unknown>>): Settings {
  return v.parse(Settings, config);
}
