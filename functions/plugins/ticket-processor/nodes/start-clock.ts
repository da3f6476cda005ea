import type { NodeContext, TicketPriority } from "@aau/sdk";
import { settingsOf } from "../settings.ts";
import { dueAt } from "../sla.ts";
import type { TicketPatch, TicketState } from "../state.ts";

/** Says when each draft is due. A ticket that exists keeps the time that it was given. */
export function startClock({ drafts }: TicketState, ctx: NodeContext): TicketPatch {
  const settings = settingsOf(ctx.config);
  const now = new Date();
  const due = new Map<TicketPriority, string>();
  for (const { priority } of drafts) if (!due.has(priority)) due.set(priority, dueAt(now, priority, settings));
  return { drafts: drafts.map((draft) => ({ ...draft, slaDueAt: due.get(draft.priority) ?? null })) };
}
