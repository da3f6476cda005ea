import { createHash } from "node:crypto";
import { asId, type Id } from "../ids.ts";

export type ConversationId = Id<"conversation">;

/** The id of a user's conversation with this name; `conversation_uuid` in migrations/ says the same. Another user's is another conversation. */
export function conversationIdOf(tenantId: string, userId: string, name: string): ConversationId {
  const hex = createHash("sha256").update(`${tenantId}/${userId}/${name}`).digest("hex");
  return asId("conversation", [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20, 32)].join("-"));
}
