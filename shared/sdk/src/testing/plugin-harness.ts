import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import * as v from "valibot";
import type { Plugin } from "../define-plugin.ts";
import { ExecutionEvent, type InputEnvelope, OutputEnvelope } from "../envelopes.ts";
import type { LogLine } from "../log.ts";
import { type PluginServer, serve } from "../serve.ts";
import type { TicketDetail } from "../tickets.ts";
import { timeLimit } from "../time-limit.ts";
import type { ModelCall, ModelScript } from "./model-script.ts";
import { type AddedDocument, type ChainScript, type Holder, PlatformStandIn, type RecordedCall, type RecordedModelCall, type StoredArtifact } from "./platform-stand-in.ts";
import { inputOf, type RunOptions } from "./run-options.ts";

export interface HarnessOptions {
  /** What the model answers. Without it the plugin runs as on a platform that has no provider's key. */
  model?: ModelScript;
  /** What the plugins answer that this one calls through `ctx.chain`. Without it the tenant is subscribed to none of them. */
  chain?: ChainScript;
}

/** One run, with everything that was seen of it from outside. */
export interface HarnessRun {
  readonly input: InputEnvelope;
  readonly events: readonly ExecutionEvent[];
  readonly calls: readonly RecordedCall[];
  readonly modelCalls: readonly RecordedModelCall[];
  readonly artifacts: ReadonlyMap<string, StoredArtifact>;
  readonly output: OutputEnvelope | null;
  /** What was thrown inside the plugin when the run failed; the envelope does not repeat it. */
  readonly thrown: unknown;
}

interface Track {
  input: InputEnvelope;
  holder: Holder;
  events: ExecutionEvent[];
  lastLine: unknown;
  output: OutputEnvelope | null;
  thrown: unknown;
}

/** Longer than the plugin may take, so that its own time-out is seen first. */
const SLACK_MS = 10_000;
/** Shorter texts are too common to say whose they are. */
const MIN_MARK_CHARS = 8;

function listed(script: ModelScript): (call: ModelCall) => ReturnType<Exclude<ModelScript, unknown[]>> {
  if (typeof script === "function") return script;
  let next = 0;
  return ({ node }) => {
    const answer = script[next++];
    if (answer === undefined) throw new Error(`the model script has ${script.length} answers, and the node ${node} asked for one more`);
    return answer;
  };
}

/**
 * Runs a plugin as the platform does: the real `serve()` over HTTP, a model that speaks the Messages protocol and a store,
 * all on local ports. Runs of several tenants may overlap; that is the test of isolation.
 *
 * ```ts
 * await using harness = new PluginHarness(plugin, { model: ["A short summary."] });
 * const result = await harness.run({ task: "Summarise this document", tenantId: "test-tenant-1" });
 * ```
 */
export class PluginHarness implements AsyncDisposable {
  readonly logs: LogLine[] = [];
  readonly #plugin: Plugin;
  readonly #hasModel: boolean;
  readonly #platform: PlatformStandIn;
  readonly #tracks: Track[] = [];
  #starting: Promise<PluginServer> | undefined;

  constructor(plugin: Plugin, { model, chain }: HarnessOptions = {}) {
    this.#plugin = plugin;
    this.#hasModel = model !== undefined;
    this.#platform = new PlatformStandIn(model ? listed(model) : null, chain ?? null);
  }

  /** All runs so far, in the order in which they were started. */
  get runs(): HarnessRun[] {
    return this.#tracks.map((track) => {
      const isOwn = ({ holder }: RecordedCall) => holder === track.holder;
      const { input, events, output, thrown } = track;
      const artifacts = this.#platform.artifactsOf(input.task_id);
      return { input, events, output, thrown, artifacts, calls: this.#platform.calls.filter(isOwn), modelCalls: this.#platform.modelCalls.filter(isOwn) };
    });
  }

  /** The run that was started last. */
  get lastRun(): HarnessRun {
    const last = this.runs.at(-1);
    assert(last, "nothing was run yet");
    return last;
  }

  /** Every call that the plugin made, also those with a token that is none of ours. */
  get calls(): readonly RecordedCall[] {
    return this.#platform.calls;
  }

  /** What stands in the tenant's built-in tracker. */
  tickets(tenantId = "test-tenant-1"): readonly TicketDetail[] {
    return this.#platform.tickets.of(tenantId);
  }

  /** Documents that the plugin added to the organisation's knowledge. */
  documents(tenantId = "test-tenant-1"): readonly AddedDocument[] {
    return this.#platform.documentsOf(tenantId);
  }

  /** Starts the plugin's server, if it does not run yet. */
  async start(): Promise<PluginServer> {
    this.#starting ??= this.#start();
    return this.#starting;
  }

  async #start(): Promise<PluginServer> {
    await this.#platform.listen();
    return serve(this.#plugin, {
      port: 0,
      hostname: "127.0.0.1",
      signals: false,
      // The services that a plugin calls are played by servers on this machine.
      allowPrivateEgress: true,
      llmGatewayUrl: this.#platform.url,
      scopeGatewayUrl: this.#platform.url,
      log: (line) => this.logs.push(line),
      onEnd: ({ thrown }, { task_id }) => {
        const track = this.#tracks.find(({ input }) => input.task_id === task_id);
        if (track) track.thrown = thrown;
      },
    });
  }

  /**
   * Runs one task to its end.
   *
   * @throws when the plugin's answer is not what the protocol says, when `signal` hung up, or when the script ran out.
   */
  async run(options: RunOptions): Promise<OutputEnvelope> {
    const { url } = await this.start();
    const input = inputOf(this.#plugin, options);
    const { name: plugin, required_scopes: scopes } = this.#plugin.manifest;
    const dependencies = this.#plugin.manifest.dependencies.map(({ name }) => name);
    const holder: Holder = { tenantId: input.context.tenant_id, taskId: input.task_id, plugin, scopes, dependencies, knowledge: options.knowledge ?? [], isOver: false };
    const track: Track = { input, holder, events: [], lastLine: undefined, output: null, thrown: undefined };
    this.#tracks.push(track);
    const tokens = { llm: `cap_llm_${randomUUID()}`, scoped: `cap_scoped_${randomUUID()}`, chain: `cap_chain_${randomUUID()}` };
    for (const token of Object.values(tokens)) this.#platform.holders.set(token, holder);
    try {
      const response = await fetch(`${url}/execute`, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          "aau-llm-token": tokens.llm,
          "aau-scoped-token": tokens.scoped,
          ...(scopes.includes("plugin:chain") && { "aau-chain-token": tokens.chain }),
          "aau-models": this.#hasModel ? "live" : "offline",
          "aau-request-id": `req_${randomUUID()}`,
          ...(options.deadline && { "aau-time-left-ms": String(Math.max(options.deadline.getTime() - Date.now(), 0)) }),
        },
        body: JSON.stringify(input),
        signal: AbortSignal.any([timeLimit(this.#plugin.manifest.timeout_seconds * 1000 + SLACK_MS), ...(options.signal ? [options.signal] : [])]),
      });
      if (response.status !== 200 || !response.body) throw new Error(`the plugin refused the task with ${response.status}: ${await response.text()}`);
      for await (const line of createInterface({ input: Readable.fromWeb(response.body) })) {
        track.lastLine = JSON.parse(line);
        track.events.push(v.parse(ExecutionEvent, track.lastLine));
      }
      const last = track.events.at(-1);
      if (last?.type !== "output") throw new Error("the plugin's answer ended without an output");
      if (this.#platform.scriptError) throw this.#platform.scriptError;
      track.output = last.envelope;
      return last.envelope;
    } finally {
      holder.isOver = true;
    }
  }

  /** The model calls of each run, as the gateway counted them, stay within the manifest's budget. */
  assertTokensWithinBudget(): void {
    const { token_budget: budget } = this.#plugin.manifest;
    for (const { input, modelCalls } of this.runs) {
      const used = modelCalls.reduce(
        (sum, { usage }) => sum + (usage ? usage.input_tokens + usage.output_tokens + usage.cache_creation_input_tokens + usage.cache_read_input_tokens : 0),
        0,
      );
      assert(used <= budget, `task ${input.task_id} used ${used} tokens of a budget of ${budget}`);
    }
  }

  /**
   * Every call carried a token of the task that it was made for, while that task ran, and nothing of one tenant (ids,
   * secrets, the task's text) is in another tenant's calls or result. Run two tenants at once before you ask.
   */
  assertNoCrossTenantCalls(): void {
    for (const { holder, isLate, method, path } of this.#platform.calls) {
      assert(holder, `${method} ${path} carried a token that belongs to no task`);
      assert(!isLate, `${method} ${path} came after its task was over: is a client kept from one execution to the next?`);
    }
    for (const own of this.runs) {
      const texts = [...own.calls.flatMap(({ path, body }) => [path, body]), ...own.events.map((event) => JSON.stringify(event))];
      const ownMarks = new Set(marksOf(own.input));
      for (const other of this.runs.filter(({ input }) => input.context.tenant_id !== own.input.context.tenant_id)) {
        const foreign = marksOf(other.input).filter((mark) => !ownMarks.has(mark));
        const leaked = foreign.find((mark) => texts.some((text) => text.includes(mark) || text.includes(JSON.stringify(mark).slice(1, -1))));
        assert(!leaked, `something of tenant ${other.input.context.tenant_id} is in a call or the result of tenant ${own.input.context.tenant_id}`);
      }
    }
  }

  /** Every run ended with exactly one OutputEnvelope, of its own task, that says why if it failed. */
  assertOutputSchemaValid(): void {
    assert(this.#tracks.length > 0, "nothing was run yet");
    for (const { input, events, lastLine } of this.#tracks) {
      assert.equal(events.filter(({ type }) => type === "output").length, 1, `task ${input.task_id} ended without one output`);
      const envelope = v.safeParse(v.object({ type: v.literal("output"), envelope: OutputEnvelope }), lastLine);
      assert(envelope.success, `the output of task ${input.task_id} is not an OutputEnvelope: ${envelope.issues?.[0].message}`);
      const { task_id, status, error, error_code, error_cause } = envelope.output.envelope;
      assert.equal(task_id, input.task_id);
      assert.equal(status === "failed", Boolean(error && error_code && error_cause), `the output of task ${input.task_id} must say why it failed, and only then`);
    }
  }

  async close(): Promise<void> {
    const server = await this.#starting?.catch(() => undefined);
    await server?.close();
    await this.#platform.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

function marksOf({ task_id, task_description, context }: InputEnvelope): string[] {
  return [context.tenant_id, context.user_id ?? "", task_id, task_description, ...Object.values(context.secrets)].filter(({ length }) => length >= MIN_MARK_CHARS);
}
