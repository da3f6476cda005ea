/**
 * Asks the model one question whose answer has the shape of a tool. What strangers wrote goes into the user's turn as quoted data between marks
 * that its author cannot foresee, and the answer can only fill in fields: the worst that an instruction in a finding can do is to get its own ticket
 * a wrong type.
 */
import { type NodeContext, quoteData } from "@aau/sdk";
import { toJsonSchema } from "@valibot/to-json-schema";
import * as v from "valibot";

const CALL_TIMEOUT_MS = 60_000;

export interface Question<Schema extends v.GenericSchema> {
  tool: string;
  system: string;
  data: string;
  answer: Schema;
  maxTokens: number;
  /** What is missing without an answer, for the warning: `The model's triage of 12 issues`. */
  what: string;
}

/** Some servers that speak the Messages API know no tools and write the JSON as text. */
function jsonIn(text: string): unknown {
  try {
    return JSON.parse(text.slice(text.indexOf("{"), text.lastIndexOf("}") + 1));
  } catch {
    return null;
  }
}

/** 402 is the gateway's stop at the caller's or the tenant's limit of money. */
const isSpendingStop = (error: unknown): boolean => typeof error === "object" && error !== null && "status" in error && error.status === 402;

/** `null` after a warning when there is no usable answer: what the rules say stands. A cancelled task does throw. */
export async function askModel<Schema extends v.GenericSchema>(ctx: NodeContext, question: Question<Schema>): Promise<v.InferOutput<Schema> | null> {
  if (ctx.budget.exceeded) {
    ctx.warn({ code: "BUDGET_USED_UP", message: `${question.what} was left out: the token budget is used up.` });
    return null;
  }
  try {
    const reply = await ctx.anthropic.messages.create(
      {
        model: ctx.model,
        max_tokens: question.maxTokens,
        system: question.system,
        messages: [{ role: "user", content: quoteData(ctx.input.task_id, question.data) }],
        tools: [{ name: question.tool, description: "Hands in the answer.", input_schema: { ...toJsonSchema(question.answer, { errorMode: "ignore" }), type: "object" as const } }],
        tool_choice: { type: "tool", name: question.tool },
      },
      { signal: ctx.signal, timeout: CALL_TIMEOUT_MS },
    );
    const called = reply.content.find((block) => block.type === "tool_use" && block.name === question.tool);
    const text = reply.content.flatMap((block) => (block.type === "text" ? [block.text] : [])).join("");
    const parsed = v.safeParse(question.answer, called?.type === "tool_use" ? called.input : jsonIn(text));
    if (parsed.success) return parsed.output;
    ctx.warn({ code: "MODEL_ANSWER_INVALID", message: `${question.what} was left out: its answer had the wrong shape.` });
  } catch (error) {
    ctx.signal.throwIfAborted();
    const isStop = isSpendingStop(error);
    ctx.warn({
      code: isStop ? "TOKEN_BUDGET_EXCEEDED" : "MODEL_FAILED",
      message: `${question.what} is missing: ${isStop ? "the task may not spend more" : "the model did not answer"}.`,
    });
  }
  return null;
}
