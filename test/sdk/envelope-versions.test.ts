import { Ajv2020 } from "ajv/dist/2020.js";
import fc from "fast-check";
import * as v from "valibot";
import { afterEach, describe, expect, it } from "vitest";
import { envelopeSchemas } from "../../scripts/envelope-schemas.ts";
import { deprecationOf, inputTo1, inputTo2, outputTo1, outputTo2 } from "../../shared/sdk/src/envelope-versions.ts";
import { InputEnvelope, OutputEnvelope } from "../../shared/sdk/src/envelopes.ts";
import { InputEnvelope2, OutputEnvelope2 } from "../../shared/sdk/src/envelopes-2.ts";
import { CallerMistake, type Plugin } from "../../shared/sdk/src/index.ts";
import { type PluginServer, serve } from "../../shared/sdk/src/serve.ts";
import { executeRequest, INPUT } from "./execute-request.ts";
import { pluginOf } from "./plugins.ts";

const text = fc.string({ unit: "binary-ascii" });
const id = fc.string({ minLength: 1, maxLength: 20 });
const maybe = <T>(some: fc.Arbitrary<T>) => fc.option(some, { nil: null });
const json = fc.dictionary(
  fc.string().filter((key) => !["__proto__", "constructor", "prototype"].includes(key)),
  fc.jsonValue({ maxDepth: 2 }),
  { maxKeys: 4 },
);
const time = fc.date({ min: new Date(0), max: new Date("2100-01-01"), noInvalidDate: true }).map((date) => date.toISOString());
const origin = fc.record({ step: id, plugin: id });

const context = {
  tenant_id: id,
  user_id: maybe(id),
  user_profile: json,
  conversation_history: fc.array(fc.record({ role: fc.constantFrom("user" as const, "assistant" as const), content: text })),
  org_knowledge_chunks: fc.array(fc.record({ content: text, source_url: maybe(text), similarity: fc.double({ min: -1, max: 1, noNaN: true }) })),
  plugin_config: json,
  secrets: fc.dictionary(
    id.filter((name) => !["__proto__", "constructor", "prototype"].includes(name)),
    text,
  ),
};
/** What a task can be: each attachment has one source. */
const input1: fc.Arbitrary<InputEnvelope> = fc.record({
  task_id: id,
  task_description: fc.string({ minLength: 1 }),
  envelope_version: fc.constant("1.0"),
  context: fc.record(context),
  metadata: fc.record({ source_channel: id, priority: fc.constantFrom("low", "normal", "high"), source_plugin: maybe(id), correlation_id: id, timestamp: time }),
  attachments: fc.array(
    fc
      .tuple(id, id, fc.oneof(fc.record({ content: text }), fc.record({ content_base64: text }), fc.record({ url: text })), fc.option(origin, { nil: undefined }))
      .map(([name, media_type, source, from]) => ({ name, media_type, ...source, ...(from && { origin: from }) })),
  ),
});

const artifact = fc.record({ artifact_id: id, name: id, media_type: id, size_bytes: fc.nat(), sha256: id });
const warning = fc.record({ code: fc.string({ maxLength: 64 }), message: fc.string({ maxLength: 200 }) });
const cause = fc.constantFrom("caller" as const, "plugin" as const, "upstream" as const, "platform" as const);
const result = fc.record({
  text: fc.string({ minLength: 1 }),
  data: maybe(json),
  confidence: fc.double({ min: 0, max: 1, noNaN: true }),
  next_steps: fc.array(fc.string({ maxLength: 50 }), { maxLength: 5 }),
});
const common = {
  envelope_version: fc.constant("2.0"),
  task_id: id,
  artifacts: fc.array(artifact, { maxLength: 5 }),
  warnings: fc.array(warning, { maxLength: 5 }),
  usage: fc.record({ tokens: fc.nat(), duration_ms: fc.nat(), nodes_run: fc.nat(), model: maybe(id), budget_exceeded: fc.boolean() }),
};
const output2: fc.Arbitrary<OutputEnvelope2> = fc.oneof(
  fc.record({ ...common, status: fc.constantFrom("success" as const, "partial" as const), result, error: fc.constant(null) }),
  fc.record({
    ...common,
    status: fc.constant("failed" as const),
    result: maybe(result),
    error: fc.record({
      code: fc.string({ minLength: 1, maxLength: 64 }),
      message: fc.string({ minLength: 1, maxLength: 200 }),
      cause,
      retry_after_seconds: maybe(fc.double({ min: 0, max: 1e6, noNaN: true })),
    }),
  }),
);

describe("the adapters between envelopes 1.0 and 2.0", () => {
  it("keep every input as it is, there and back", () => {
    fc.assert(
      fc.property(input1, (input) => {
        const there = inputTo2(input);
        expect(v.parse(InputEnvelope2, there)).toEqual(there);
        expect(v.parse(InputEnvelope, inputTo1(there))).toEqual(input);
      }),
    );
  });

  it("keep every output of 2.0 as it is, there and back", () => {
    fc.assert(
      fc.property(output2, (output) => {
        const there = outputTo1(output);
        expect(v.parse(OutputEnvelope, there)).toEqual(there);
        expect(v.parse(OutputEnvelope2, outputTo2(there))).toEqual(output);
      }),
    );
  });

  it("keep what 2.0 knows of every output of 1.0, and settle what it contradicts", () => {
    fc.assert(
      fc.property(output2, maybe(fc.string({ maxLength: 64 })), maybe(fc.string({ maxLength: 50 })), maybe(cause), (output, error_code, error, error_cause) => {
        // A 1.0 envelope may say anything in its three error fields, whatever its status.
        const said = { ...outputTo1(output), error_code, error, error_cause };
        const there = v.parse(OutputEnvelope2, outputTo2(v.parse(OutputEnvelope, said)));
        expect(there).toMatchObject({ status: said.status, task_id: said.task_id, artifacts: said.artifacts, warnings: said.warnings });
        expect(there.error === null).toBe(said.status !== "failed");
        if (there.error) expect(there.error).toMatchObject({ cause: error_cause ?? "plugin", code: error_code || "INTERNAL" });
      }),
    );
  });

  it("choose one source of an attachment that has several or none", () => {
    const [input] = fc.sample(input1, 1);
    if (!input) throw new Error("no sample");
    const attachments = [
      { name: "a", media_type: "b" },
      { name: "a", media_type: "b", content_base64: "eA==", url: "https://x" },
      { name: "a", media_type: "b", content: "x", url: "https://x" },
    ];
    expect(inputTo2({ ...input, attachments }).inputs.map(({ source }) => source)).toEqual([
      { type: "text", text: "" },
      { type: "base64", data: "eA==" },
      { type: "text", text: "x" },
    ]);
  });

  it("say nothing of the current version, and name the plugin that speaks an older one", () => {
    expect(deprecationOf({ name: "p", version: "1.2.3", envelope_version: "2.0" })).toBeNull();
    expect(deprecationOf({ name: "p", version: "1.2.3", envelope_version: "1.0" })).toBe(
      "p 1.2.3 speaks envelope 1.0; the platform speaks 2.0 and will stop accepting the older one.",
    );
  });
});

describe("the published schemas", () => {
  const ajv = new Ajv2020({ strict: false, validateFormats: false });
  const validators = new Map(envelopeSchemas().map(({ version, message, schema }) => [`${version} ${message}`, ajv.compile({ ...schema, $schema: undefined })]));

  it("accept what the SDK's schemas accept", () => {
    fc.assert(
      fc.property(input1, output2, (input, output) => {
        for (const [name, value] of [
          ["1.0 input", input],
          ["2.0 input", inputTo2(input)],
          ["1.0 output", outputTo1(output)],
          ["2.0 output", output],
        ] as const) {
          const validate = validators.get(name);
          expect([name, validate?.(JSON.parse(JSON.stringify(value))), validate?.errors]).toEqual([name, true, null]);
        }
      }),
      { numRuns: 50 },
    );
  });

  it.each<[string, Record<string, unknown>]>([
    ["1.0 output", { status: "done" }],
    ["1.0 output", { confidence: 2 }],
    ["2.0 output", { status: "success", error: { code: "X", message: "x", cause: "plugin" } }],
    ["2.0 output", { status: "failed", error: null }],
    ["2.0 output", { usage: { tokens: -1 } }],
    ["2.0 input", { inputs: [{ name: "a", media_type: "b", source: { type: "ftp" } }] }],
    ["1.0 input", { task_description: "" }],
  ])("refuse as those do: %s with %o", (name, changes) => {
    const [input, output] = [fc.sample(input1, 1)[0], fc.sample(output2, 1)[0]];
    if (!input || !output) throw new Error("no sample");
    const whole = { "1.0 input": input, "2.0 input": inputTo2(input), "1.0 output": outputTo1(output), "2.0 output": output }[name];
    expect(validators.get(name)?.({ ...whole, ...changes })).toBe(false);
  });
});

describe("a plugin's service", () => {
  let server: PluginServer | undefined;
  afterEach(() => server?.close());
  const serving = async (plugin: Plugin) => {
    server = await serve(plugin, { port: 0, signals: false, llmGatewayUrl: "http://x", scopeGatewayUrl: "http://x", log: () => {} });
    return server.url;
  };
  const lastLine = async (response: Response) => JSON.parse((await response.text()).trim().split("\n").at(-1) ?? "");
  const fullInput = v.parse(InputEnvelope, INPUT);

  it.each(["1.0", "2.0"] as const)("answers in the version that it is asked in, whatever its manifest names (%s)", async (envelopeVersion) => {
    const url = await serving(pluginOf((_, task) => task, { envelopeVersion }));
    const one = await lastLine(await executeRequest(url, JSON.stringify(fullInput)));
    expect(v.parse(OutputEnvelope, one.envelope)).toMatchObject({ envelope_version: "1.0", status: "success" });
    const two = await lastLine(await executeRequest(url, JSON.stringify(inputTo2(fullInput))));
    expect(v.parse(OutputEnvelope2, two.envelope)).toMatchObject({ envelope_version: "2.0", status: "success", result: { text: one.envelope.result }, error: null });
  });

  it("tells a failure in the form of either", async () => {
    const url = await serving(
      pluginOf(() => {
        throw new CallerMistake("Send a diff.");
      }),
    );
    const one = await lastLine(await executeRequest(url, JSON.stringify(fullInput)));
    expect(one.envelope).toMatchObject({ status: "failed", error: "Send a diff.", error_code: "INVALID_INPUT", error_cause: "caller" });
    const two = await lastLine(await executeRequest(url, JSON.stringify(inputTo2(fullInput))));
    expect(two.envelope).toMatchObject({ status: "failed", result: null, error: { code: "INVALID_INPUT", message: "Send a diff.", cause: "caller" } });
  });

  it("names the field of a 2.0 input that is wrong", async () => {
    const url = await serving(pluginOf(() => ""));
    const response = await executeRequest(url, JSON.stringify({ ...inputTo2(fullInput), inputs: [{ name: "a", media_type: "b", source: { type: "ftp" } }] }));
    expect([response.status, await response.text()]).toEqual([422, expect.stringContaining("inputs.0.source.type")]);
  });
});
