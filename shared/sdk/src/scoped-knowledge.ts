/** The organisation's knowledge, through the platform's scope-gateway. */
import * as v from "valibot";
import type { NodeContext } from "./define-plugin.ts";
import { KnowledgeChunk } from "./envelopes.ts";
import { GatewayError } from "./errors.ts";
import { quoteKnowledge } from "./quote-data.ts";
import { callDoor, requireScope, type ScopedDoor, type ScopedRequest } from "./scoped-call.ts";

const DOOR = "the organisation's knowledge";

export const KnowledgeQuestion = v.strictObject({
  query: v.pipe(v.string(), v.trim(), v.minLength(1), v.maxLength(2_000)),
  limit: v.optional(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(20)), 8),
});
export const NewKnowledge = v.strictObject({
  content: v.pipe(v.string(), v.minLength(1), v.maxLength(1_000_000)),
  media_type: v.optional(v.picklist(["text/markdown", "text/plain", "text/html"]), "text/markdown"),
  source_url: v.optional(v.nullable(v.pipe(v.string(), v.maxLength(2048))), null),
});
const Found = v.object({ passages: v.array(KnowledgeChunk) });
const Added = v.object({ document_id: v.string(), status: v.string() });

async function answerOf<Schema extends v.GenericSchema>(door: ScopedDoor, schema: Schema, request: ScopedRequest): Promise<v.InferOutput<Schema>> {
  const response = await callDoor(door, DOOR, { mediaType: "application/json", ...request });
  if (!response.ok) throw new GatewayError(`${DOOR} answered ${request.method} with ${response.status}`, response.status);
  const answer = v.safeParse(schema, await response.json().catch(() => undefined));
  if (!answer.success) throw new GatewayError(`${DOOR}'s answer to ${request.method} is not what it should be`, null);
  return answer.output;
}

function checked<Schema extends v.GenericSchema>(schema: Schema, value: unknown): v.InferOutput<Schema> {
  const parsed = v.safeParse(schema, value);
  if (parsed.success) return parsed.output;
  throw new TypeError(`ctx.knowledge: ${v.getDotPath(parsed.issues[0]) ?? "the argument"} must be ${parsed.issues[0].expected ?? "another value"}`);
}

export function scopedKnowledge(door: ScopedDoor, taskId: string): NodeContext["knowledge"] {
  return {
    async search(query, limit) {
      requireScope(door, "knowledge:read");
      const asked = checked(KnowledgeQuestion, { query, limit });
      const { passages } = await answerOf(door, Found, { method: "POST", path: "knowledge/search", body: JSON.stringify(asked) });
      return { passages, asPrompt: () => quoteKnowledge(taskId, passages) };
    },
    async add({ content, mediaType, sourceUrl }) {
      requireScope(door, "knowledge:write");
      const sent = checked(NewKnowledge, { content, media_type: mediaType, source_url: sourceUrl });
      return answerOf(door, Added, { method: "POST", path: "knowledge", body: JSON.stringify(sent) });
    },
  };
}
