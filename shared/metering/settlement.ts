/** The end of one model call: exactly one of `done`, `failed` and `broken` is written, whoever comes first. */
import type { Capability } from "../access/capability-token.ts";
import type { TenantDb } from "../db/database.ts";
import { failpoint } from "../failpoint.ts";
import { publicId } from "../ids.ts";
import type { Message, MessageReader } from "../models/message-stream.ts";
import type { MessagesError } from "../models/messages-api.ts";
import { troubleOf } from "../models/upstream.ts";
import type { Telemetry } from "../telemetry/domain-events.ts";
import { type CallOutcome, type ClosedCall, closeCall } from "./llm-journal.ts";
import { CallStopped } from "./open-calls.ts";
import { costMicroUsd, isPriced } from "./prices.ts";
import { estimateUsage, type MeteredUsage, readUsage } from "./usage.ts";

export interface CallToSettle {
  db: TenantDb;
  telemetry: Telemetry;
  capability: Capability;
  id: string;
  node: string | null;
  /** The model that was asked. */
  model: string;
  traceparent: string;
  charges: boolean;
  requestBytes: number;
  /** Tokens that the step had used before. */
  usedBefore: number;
  /** What the provider's request was made with. */
  signal: AbortSignal;
  /** Stops the watch over the call. */
  release(): void;
}

/** What a plugin is told about a call that was closed, or was not opened, for this reason. */
export const STOPPED = {
  cancelled: { status: 403, type: "permission_error", code: "CANCELLED", message: new CallStopped("cancelled").message },
  lease_lost: { status: 403, type: "permission_error", code: "LEASE_LOST", message: new CallStopped("lease_lost").message },
  // Whoever still listens then is the client of a gateway that stops, and may ask the next one.
  hung_up: { status: 503, type: "api_error", code: "SERVICE_UNAVAILABLE", message: new CallStopped("hung_up").message, retryAfterSec: 1 },
} as const satisfies Record<CallStopped["reason"], MessagesError>;

const NOT_WRITTEN: MessagesError = {
  status: 503,
  type: "api_error",
  code: "SERVICE_UNAVAILABLE",
  message: "The answer came, but the platform could not write it down; it is withheld and not billed.",
  retryAfterSec: 1,
};

export class Settlement {
  providerRequestId: string | null = null;
  readonly #call: CallToSettle;
  readonly #startedAt = performance.now();
  #tokensUsed: number;

  constructor(call: CallToSettle) {
    this.#call = call;
    this.#tokensUsed = call.usedBefore;
  }

  /** `aau-tokens-used` counts this call once it is settled; on a stream, whose headers leave first, it is what was used before. */
  headers(): Record<string, string> {
    return {
      "aau-call": publicId("call", this.#call.id),
      "aau-tokens-used": String(this.#tokensUsed),
      "aau-budget": String(this.#call.capability.token_budget),
      ...(this.providerRequestId === null ? {} : { "request-id": this.providerRequestId }),
    };
  }

  /** Counts for an answer that came without. */
  estimate(answerBytes: number): Record<string, unknown> {
    return estimateUsage(this.#call.requestBytes, answerBytes, null).raw;
  }

  /** Journals a whole answer. Null: it may be handed over. */
  async done(message: Message, rawUsage: unknown, answer: string, answerBytes: number): Promise<MessagesError | null> {
    const usage = readUsage(rawUsage) ?? estimateUsage(this.#call.requestBytes, answerBytes, message.usage);
    const billedAs = isPriced(message.model) ? message.model : this.#call.model;
    const written = await this.#write({
      state: "done",
      model: message.model,
      usage,
      costMicroUsd: this.#call.charges ? costMicroUsd(usage.counts, billedAs) : 0n,
      providerRequestId: this.providerRequestId,
      answer,
      error: null,
    });
    if (written === "lost") return NOT_WRITTEN;
    return written === "done" ? null : STOPPED.lease_lost;
  }

  /** Journals a refusal of the provider. It costs the tenant nothing; what the provider counted, and so charges the platform, is kept. */
  async failed(reader: MessageReader | null, error: Record<string, unknown>): Promise<void> {
    const usage = readUsage(reader?.usage);
    await this.#write({
      state: "failed",
      model: reader?.message?.model ?? null,
      usage,
      costMicroUsd: usage && this.#call.charges ? costMicroUsd(usage.counts, this.#call.model) : 0n,
      providerRequestId: this.providerRequestId,
      answer: null,
      error,
    });
  }

  /** Journals a call that brought no whole answer, and says what the plugin is told. */
  async broken(reader: MessageReader | null, cause: unknown): Promise<MessagesError> {
    const stopped = this.#stopOf(cause);
    const trouble = stopped ? STOPPED[stopped] : troubleOf(cause);
    await this.failed(reader, stopped ? { type: "aborted", reason: stopped } : { type: "upstream_error", reason: trouble.type });
    return trouble;
  }

  /** An abort shows as an error of whatever was waiting; the signal knows why. */
  #stopOf(cause: unknown): CallStopped["reason"] | null {
    const { signal } = this.#call;
    const reason: unknown = signal.aborted ? signal.reason : cause;
    if (reason instanceof CallStopped) return reason.reason;
    return signal.aborted ? "hung_up" : null;
  }

  async #write(outcome: CallOutcome): Promise<ClosedCall["state"] | "lost" | "gone"> {
    const { db, telemetry, capability, id, node, model, traceparent } = this.#call;
    let written: ClosedCall["state"] | "lost" | "gone";
    FAILPOINT: await failpoint("llm.before_settle");
    try {
      const closed = await closeCall(db, capability.tenant, id, outcome);
      written = closed?.state ?? "gone";
      if (closed) this.#tokensUsed = Number(closed.tokens_used);
    } catch (error) {
      written = "lost";
      telemetry.degraded("llm journal", error);
    } finally {
      // Until here the sign of life goes on, so that nobody takes a call that is being settled for dead.
      this.#call.release();
    }
    FAILPOINT: await failpoint("llm.after_settle");
    telemetry.modelCallFinished({
      taskId: capability.task,
      tenantId: capability.tenant,
      plugin: capability.plugin,
      node,
      model: outcome.model ?? model,
      tokens: tokensOf(outcome.usage),
      durationMs: performance.now() - this.#startedAt,
      state: written,
      traceparent,
    });
    return written;
  }
}

function tokensOf(usage: MeteredUsage | null): number {
  if (!usage) return 0;
  const { input, output, cacheWrite5m, cacheWrite1h, cacheRead } = usage.counts;
  return input + output + cacheWrite5m + cacheWrite1h + cacheRead;
}
