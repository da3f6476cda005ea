/** Statements on the running summary of a conversation. */
import * as v from "valibot";
import type { PlatformDb } from "../db/database.ts";
import { asId, type TenantId } from "../ids.ts";
import { Turn } from "../sdk/src/envelopes.ts";
import type { ConversationId } from "./conversation-id.ts";

const Overflow = v.object({ tenant_id: v.string(), summary: v.nullable(v.string()), summarised_through: v.string(), through: v.string(), turns: v.array(Turn) });

export interface ConversationOverflow {
  tenantId: TenantId;
  /** What the turns up to the cursor came to. */
  summary: string | null;
  /** The cursor that the turns were read at, and where it goes when they are told. */
  from: string;
  through: string;
  turns: Turn[];
}

/** The oldest turns that a plugin is no longer given, at most 40 of them. Null: there are none, or no such conversation. */
export async function readOverflow(db: Pick<PlatformDb, "call">, id: ConversationId): Promise<ConversationOverflow | null> {
  const [raw] = await db.call("SELECT tenant_id, summary, summarised_through::text AS summarised_through, through::text AS through, turns FROM read_conversation_overflow($1)", [
    id,
  ]);
  if (!raw) return null;
  const row = v.parse(Overflow, raw);
  return { tenantId: asId("tenant", row.tenant_id), summary: row.summary, from: row.summarised_through, through: row.through, turns: row.turns };
}

/** False: the cursor is no longer where the turns were read, and nothing was written. */
export async function moveSummary(db: Pick<PlatformDb, "call">, id: ConversationId, overflow: ConversationOverflow, summary: { text: string; model: string }): Promise<boolean> {
  const [row] = await db.call<{ moved: boolean }>("SELECT move_conversation_summary($1, $2, $3, $4, $5) AS moved", [
    id,
    overflow.from,
    overflow.through,
    summary.text,
    summary.model,
  ]);
  return row?.moved ?? false;
}

/** There is no model now; `wake` rings again. */
export async function putOffSummary(db: Pick<PlatformDb, "call">, id: ConversationId, delayMs: number): Promise<void> {
  await db.call("SELECT put_off_conversation_summary($1, $2)", [id, delayMs]);
}

const Due = v.object({ id: v.string() });

/** Conversations whose ring was not heard; each is put off, so that it is not taken again at once. */
export async function takeDueConversations(db: Pick<PlatformDb, "call">, limit: number): Promise<ConversationId[]> {
  const rows = await db.call("SELECT id FROM take_due_conversations($1)", [limit]);
  return v.parse(v.array(Due), rows).map((row) => asId("conversation", row.id));
}
