/** The state of one run of a plugin's graph. It is made for one request and dropped with it. */
import type Anthropic from "@anthropic-ai/sdk";
import type { NodeContext, Secret } from "./define-plugin.ts";
import type { ArtifactRef, ExecutionEvent, InputEnvelope, Warning } from "./envelopes.ts";
import { ContentPolicyRefusal, Stopped } from "./errors.ts";
import type { GuardedFetch } from "./guarded-fetch.ts";
import type { Manifest } from "./manifest.ts";
import { type loadAnthropic, meteredClient } from "./metered-anthropic.ts";
import { quoteKnowledge } from "./quote-data.ts";
import { scopedArtifacts } from "./scoped-artifacts.ts";
import type { ScopedDoor } from "./scoped-call.ts";
import { scopedChain } from "./scoped-chain.ts";
import { scopedKnowledge } from "./scoped-knowledge.ts";
import { scopedTickets } from "./scoped-tickets.ts";
import { maskSecret, redactor } from "./secret.ts";
import type { Seen } from "./usage-reader.ts";

/** What the platform gives to one execution, apart from its input. */
export interface Runtime {
  llmGatewayUrl: string;
  llmToken: string;
  scopeGatewayUrl: string;
  scopedToken: string;
  chainGatewayUrl: string;
  /** Null where the manifest does not ask for `plugin:chain`. */
  chainToken: string | null;
  /** False when the llm-gateway answers from its offline model. */
  hasModel: boolean;
  /** How long the platform waits; `null` leaves only the plugin's own time-out. */
  timeLeftMs: number | null;
  /** Aborted when the platform hangs up or the process is cut off. */
  signal: AbortSignal;
  /** Aborted when the process has to go soon: no further node begins. */
  leaving?: AbortSignal;
  /** Calls addresses that callers and tenants name. */
  fetch: GuardedFetch;
  /** Headers that go along with every call to the platform. */
  trace: Readonly<Record<string, string>>;
  /** Told of each node that ends, for the log. */
  onNodeEnd?(node: string, durationMs: number, outcome: "completed" | "failed"): void;
}

/** More are dropped: a loop that reports must not fill the platform's memory. */
const MAX_REPORTS = 1000;
const MAX_WARNINGS = 50;
const MAX_ARTIFACTS = 100;
const WARN_AT = 0.8;
const CALL_SLACK_MS = 1_000;

export interface ExecutionParts {
  manifest: Manifest;
  input: InputEnvelope;
  secrets: Readonly<Record<string, string>>;
  config: Readonly<Record<string, unknown>>;
  onRefusal: "fail" | "continue";
  runtime: Runtime;
  anthropic: Awaited<ReturnType<typeof loadAnthropic>>;
  signal: AbortSignal;
  /** On the monotonic clock. */
  deadlineAt: number;
  emit(event: ExecutionEvent): void;
}

export class Execution {
  readonly signal: AbortSignal;
  readonly redact: (text: string) => string;
  readonly warnings: Warning[] = [];
  readonly artifacts = new Map<string, ArtifactRef>();
  tokensUsed = 0;
  nodesRun = 0;
  modelUsed: string | null = null;
  refused = false;
  /** A node did not begin, since the process has to go. */
  hasYielded = false;
  /** The node that threw first, for the message of a failure. */
  failedNode: string | null = null;
  readonly #parts: ExecutionParts;
  readonly #secrets: ReadonlyMap<string, Secret>;
  readonly #occurrences = new Map<string, number>();
  #reports = 0;
  #isOver = false;
  #warnedNearLimit = false;
  #warnedExceeded = false;

  constructor(parts: ExecutionParts) {
    this.#parts = parts;
    this.signal = parts.signal;
    const declared = Object.entries(parts.secrets).filter(([name]) => parts.manifest.required_secret_names.includes(name));
    this.#secrets = new Map(declared.map(([name, value]) => [name, maskSecret(value)]));
    this.redact = redactor([
      ...Object.values(parts.secrets),
      parts.runtime.llmToken,
      parts.runtime.scopedToken,
      ...(parts.runtime.chainToken === null ? [] : [parts.runtime.chainToken]),
    ]);
  }

  get budgetExceeded(): boolean {
    return this.tokensUsed > this.#parts.manifest.token_budget;
  }

  /** The boundary around every node: cancel, budget, progress. `signal` also ends when a parallel branch fails. */
  async runNode<Patch>(name: string, signal: AbortSignal, run: (ctx: NodeContext) => Patch | Promise<Patch>): Promise<Patch> {
    signal.throwIfAborted();
    if (this.#parts.runtime.leaving?.aborted) {
      this.hasYielded = true;
      throw new Stopped("shutdown", "the process is being stopped");
    }
    this.checkBudget();
    const startedAt = performance.now();
    let outcome: "completed" | "failed" = "failed";
    this.nodesRun += 1;
    this.#emit({ type: "node_started", node: name });
    try {
      const patch = await run(this.#contextFor(name, signal));
      this.checkBudget();
      outcome = "completed";
      return patch;
    } catch (error) {
      if (!signal.aborted) this.failedNode ??= name;
      throw error;
    } finally {
      const durationMs = Math.round((performance.now() - startedAt) * 1000) / 1000;
      if (outcome === "completed") this.#emit({ type: "node_finished", node: name, duration_ms: durationMs });
      if (!this.#isOver) this.#parts.runtime.onNodeEnd?.(name, durationMs, outcome);
    }
  }

  /** Also called once after the graph, for calls whose last node has ended before their usage was read. */
  checkBudget(): void {
    const { token_budget: limit } = this.#parts.manifest;
    if (this.budgetExceeded && !this.#warnedExceeded) {
      this.#warnedExceeded = true;
      this.warn({ code: "TOKEN_BUDGET_EXCEEDED", message: `${this.tokensUsed} tokens were used of a budget of ${limit}; the task went on.` });
    } else if (this.tokensUsed >= limit * WARN_AT && !this.#warnedNearLimit && !this.#warnedExceeded) {
      this.#warnedNearLimit = true;
      this.warn({ code: "TOKEN_BUDGET_NEAR_LIMIT", message: `${this.tokensUsed} tokens were used of a budget of ${limit}.` });
    }
    if (this.refused && this.#parts.onRefusal === "fail") throw new ContentPolicyRefusal("the model refused this content");
  }

  warn(warning: Warning): void {
    if (this.#isOver || this.warnings.length >= MAX_WARNINGS) return;
    const clean = { code: String(warning.code).slice(0, 64), message: this.redact(String(warning.message)).slice(0, 2000) };
    this.warnings.push(clean);
    this.#emit({ type: "warning", warning: clean });
  }

  /** A node that ignores its signal may still run; from now on nobody hears it. */
  end(): void {
    this.#isOver = true;
  }

  #emit(event: ExecutionEvent): void {
    if (!this.#isOver) this.#parts.emit(event);
  }

  #report(node: string, message: string): void {
    if (this.#reports >= MAX_REPORTS) return;
    this.#reports += 1;
    this.#emit({ type: "report", node, message: this.redact(String(message)).slice(0, 500) });
  }

  #count(node: string, seen: Seen): void {
    this.tokensUsed += seen.tokens;
    this.modelUsed = seen.model ?? this.modelUsed;
    if (seen.isCutOff) this.warn({ code: "MODEL_ANSWER_CUT_OFF", message: `An answer of the model reached max_tokens in the node ${node.slice(0, 100)} and is not whole.` });
    if (!seen.refused || this.refused) return;
    this.refused = true;
    if (this.#parts.onRefusal === "continue") this.warn({ code: "CONTENT_POLICY_REFUSAL", message: "The model refused a part of this content." });
  }

  #countOccurrence(key: string): number {
    const count = (this.#occurrences.get(key) ?? 0) + 1;
    this.#occurrences.set(key, count);
    return count;
  }

  #keep(ref: ArtifactRef, isDelayed: boolean): void {
    if (!this.artifacts.has(ref.name) && this.artifacts.size >= MAX_ARTIFACTS) throw new RangeError(`a task holds at most ${MAX_ARTIFACTS} artifacts`);
    this.artifacts.set(ref.name, ref);
    if (isDelayed) this.warn({ code: "ARTIFACT_DELAYED", message: `The artifact store does not answer; the platform keeps ${ref.name} until it does, and serves it meanwhile.` });
  }

  #clientFor(node: string, signal: AbortSignal): Anthropic {
    const { runtime, anthropic, deadlineAt } = this.#parts;
    return meteredClient(anthropic, {
      gatewayUrl: runtime.llmGatewayUrl,
      token: runtime.llmToken,
      node,
      signal,
      // Behind the execution's own end, which closes the call and says why: of two at one moment the wrong one might come first.
      timeoutMs: Math.max(Math.ceil(deadlineAt - performance.now()), 0) + CALL_SLACK_MS,
      trace: runtime.trace,
      countOccurrence: (key) => this.#countOccurrence(key),
      onSeen: (seen) => this.#count(node, seen),
    });
  }

  /** A node's view of the execution. The client is made when it is first asked for: most nodes call no model. */
  #contextFor(node: string, signal: AbortSignal): NodeContext {
    const execution = this;
    const { manifest, input, config, runtime } = this.#parts;
    let client: Anthropic | undefined;
    let artifacts: NodeContext["artifacts"] | undefined;
    let tickets: NodeContext["tickets"] | undefined;
    let knowledge: NodeContext["knowledge"] | undefined;
    const door: ScopedDoor = { gatewayUrl: runtime.scopeGatewayUrl, token: runtime.scopedToken, scopes: manifest.required_scopes, signal, trace: runtime.trace };
    return {
      input,
      config,
      model: manifest.model,
      hasModel: runtime.hasModel,
      signal,
      fetch: runtime.fetch,
      knowledgePrompt: () => quoteKnowledge(input.task_id, input.context.org_knowledge_chunks),
      secret: (name) => this.#secrets.get(name) ?? null,
      report: (message) => this.#report(node, message),
      warn: (warning) => this.warn(warning),
      get anthropic() {
        client ??= execution.#clientFor(node, signal);
        return client;
      },
      get artifacts() {
        artifacts ??= scopedArtifacts({ ...door, onStored: (ref, isDelayed) => execution.#keep(ref, isDelayed) });
        return artifacts;
      },
      get tickets() {
        tickets ??= scopedTickets(door);
        return tickets;
      },
      get knowledge() {
        knowledge ??= scopedKnowledge(door, input.task_id);
        return knowledge;
      },
      chain: scopedChain({
        ...door,
        gatewayUrl: runtime.chainGatewayUrl,
        token: runtime.chainToken,
        taskId: input.task_id,
        countOccurrence: (key) => execution.#countOccurrence(key),
        timeLeftMs: () => Math.max(0, Math.round(this.#parts.deadlineAt - performance.now())),
        onUsed: (tokens) => {
          execution.tokensUsed += tokens;
        },
      }),
      budget: {
        limit: manifest.token_budget,
        get used() {
          return execution.tokensUsed;
        },
        get exceeded() {
          return execution.budgetExceeded;
        },
      },
    };
  }
}
