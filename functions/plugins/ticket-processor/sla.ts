/** The clock of a ticket: when it is due, around the clock or in business hours alone. */
import type { TicketPriority } from "@aau/sdk";
import { type BusinessHours, minutesOf, type Settings } from "./settings.ts";

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
/** The longest SLA at one hour a week ends before. */
const MAX_DAYS = 15_000;

/** How far a zone's clocks are ahead of UTC at an instant. */
function offsetMs(formatter: Intl.DateTimeFormat, at: number): number {
  const parts = Object.fromEntries(formatter.formatToParts(at).map(({ type, value }) => [type, Number(value)]));
  const { year = 0, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = parts;
  return Date.UTC(year, month - 1, day, hour, minute, second) - Math.floor(at / 1000) * 1000;
}

/** The instant at which the zone's clocks show `local`, a UTC time that stands for the reading of a clock. */
function instantOf(formatter: Intl.DateTimeFormat, local: number): number {
  const guess = local - offsetMs(formatter, local);
  // On the days when clocks change, the first guess may have used the other offset.
  return local - offsetMs(formatter, guess);
}

/** The instant at which `hours` of business hours have passed since `from`. */
export function addBusinessHours(from: Date, hours: number, { timezone, days, start, end }: BusinessHours): Date {
  const formatter = new Intl.DateTimeFormat("en-US", {
    timeZone: timezone,
    hourCycle: "h23",
    year: "numeric",
    month: "numeric",
    day: "numeric",
    hour: "numeric",
    minute: "numeric",
    second: "numeric",
  });
  const localNow = from.getTime() + offsetMs(formatter, from.getTime());
  let left = hours * HOUR_MS;
  for (let day = Math.floor(localNow / DAY_MS), count = 0; count < MAX_DAYS; day += 1, count += 1) {
    // 1 January 1970 was a Thursday, the fourth day.
    if (!days.includes(((day + 3) % 7) + 1)) continue;
    const opens = Math.max(instantOf(formatter, day * DAY_MS + minutesOf(start) * 60_000), from.getTime());
    const closes = instantOf(formatter, day * DAY_MS + minutesOf(end) * 60_000);
    const open = Math.max(closes - opens, 0);
    if (left <= open) return new Date(opens + left);
    left -= open;
  }
  throw new RangeError("the business hours never come");
}

/** When a ticket of this priority is due that was created at `createdAt`. */
export function dueAt(createdAt: Date, priority: TicketPriority, { sla_hours, business_hours }: Pick<Settings, "sla_hours" | "business_hours">): string {
  const hours = sla_hours[priority];
  return (business_hours ? addBusinessHours(createdAt, hours, business_hours) : new Date(createdAt.getTime() + hours * HOUR_MS)).toISOString();
}
