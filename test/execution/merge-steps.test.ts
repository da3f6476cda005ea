import { describe, expect, it } from "vitest";
import type { Claim, ClaimedStep } from "../../shared/execution/claim-task.ts";
import { mergeSteps } from "../../shared/execution/merge-steps.ts";
import { type StepRecord, stepRecord } from "../../shared/execution/step-record.ts";
import type { StoredResult } from "../../shared/tasks/task-view.ts";
import { echo } from "../support/plugins.ts";

const planned = (id: string, needs: string[] = []): ClaimedStep => ({
  id,
  plugin: `plugin-${id}`,
  version: "1.0.0",
  needs,
  manifest: echo.manifest,
  endpoint: "",
  ending: null,
  config: {},
});
const gave = (rest: Partial<StoredResult> = {}): StoredResult => ({
  result: "text",
  data: { n: 1 },
  artifacts: [],
  confidence: 0.9,
  next_steps: ["go on"],
  warnings: [{ code: "W", message: "careful" }],
  execution_meta: { latency_seconds: 1, agents_invoked: 2, model_used: "m1", budget_exceeded: false },
  ...rest,
});
const done = (step: ClaimedStep, latencyMs = 1_000, rest: Partial<StoredResult> = {}) => stepRecord(step, "success", { output: gave(rest), latencyMs });
const failed = (step: ClaimedStep, code = "INTERNAL") => stepRecord(step, "failed", { error: { code, message: "no luck", cause: "plugin" }, latencyMs: 5 });
const merge = (plan: [ClaimedStep, ...ClaimedStep[]], steps: StepRecord[]) => mergeSteps({ steps: plan } satisfies Pick<Claim, "steps">, steps);

describe("the result of several steps", () => {
  const [a, b, c] = [planned("a"), planned("b", ["a"]), planned("c", ["a"])];

  it("is their parts in order, the least confidence, the sum of their work and the longest way through them", () => {
    const steps = [
      done(a, 1_000),
      done(b, 2_000, { result: "more", confidence: 0.4, data: null, artifacts: [{ artifact_id: "x", name: "f", media_type: "t", size_bytes: 1, sha256: "s" }] }),
      done(c, 500),
    ];
    const { status, result, error } = merge([a, b, c], steps);
    expect([status, error]).toEqual(["success", null]);
    expect(result).toEqual({
      deprecation_warning: null,
      migration_guide_url: null,
      result: "## a (plugin-a)\n\ntext\n\n## b (plugin-b)\n\nmore\n\n## c (plugin-c)\n\ntext",
      data: {
        steps: {
          a: { plugin: "plugin-a", status: "success", data: { n: 1 }, confidence: 0.9 },
          b: { plugin: "plugin-b", status: "success", data: null, confidence: 0.4 },
          c: { plugin: "plugin-c", status: "success", data: { n: 1 }, confidence: 0.9 },
        },
      },
      artifacts: [{ artifact_id: "x", name: "f", media_type: "t", size_bytes: 1, sha256: "s", step: "b" }],
      confidence: 0.4,
      next_steps: ["go on", "go on", "go on"],
      warnings: ["a", "b", "c"].map((step) => ({ code: "W", message: "careful", step })),
      execution_meta: { latency_seconds: 3, agents_invoked: 6, model_used: "m1", budget_exceeded: false },
    });
  });

  it("of one step is exactly what that gave", () => {
    const output = gave();
    expect(merge([a], [stepRecord(a, "partial", { output, latencyMs: 1 })])).toEqual({ status: "partial", result: output, error: null });
    expect(merge([a], [failed(a)])).toEqual({ status: "failed", result: null, error: { code: "INTERNAL", message: "no luck", cause: "plugin" } });
  });

  it("names every plugin of the plan that is on its way out, also one that failed or was not asked", () => {
    const ends = (step: ClaimedStep, guide: string): ClaimedStep => ({ ...step, ending: { sunsetAt: new Date(0), migrationGuideUrl: guide } });
    const [x, y] = [ends(a, "https://x.example"), ends(b, "https://y.example")];
    const { status, result, error } = merge([x, y, c], [failed(x), stepRecord(y, "skipped"), failed(c)]);
    expect([status, error?.code, result?.result]).toEqual(["failed", "INTERNAL", undefined]);
    expect(result?.warnings?.map(({ code, step }) => [code, step])).toEqual([
      ["PLUGIN_DEPRECATED", "a"],
      ["PLUGIN_DEPRECATED", "b"],
    ]);
    expect(result?.migration_guide_url).toBe("https://x.example");
    const said = merge([x, c], [done(x, 1, { deprecation_warning: result?.warnings?.[0]?.message, migration_guide_url: "https://x.example" }), done(c)]).result;
    expect(said?.warnings?.map(({ code }) => code)).toEqual(["W", "W"]);
  });

  it("is partial where a step failed and another did not, with a warning for each that failed", () => {
    const { status, result } = merge([a, b, c], [done(a), failed(b), failed(c, "DEPENDENCY_FAILED")]);
    expect(status).toBe("partial");
    expect(result?.warnings?.filter(({ code }) => code === "DEPENDENCY_FAILED").map(({ step }) => step)).toEqual(["b", "c"]);
    expect(result?.result).toBe("## a (plugin-a)\n\ntext");
  });

  it("is partial where a step said so itself, and whole where one was skipped", () => {
    expect(merge([a, b], [done(a), stepRecord(b, "partial", { output: gave(), latencyMs: 1 })]).status).toBe("partial");
    expect(merge([a, b], [done(a), stepRecord(b, "skipped")])).toMatchObject({ status: "success", result: { confidence: 0.9 } });
    expect(merge([a, b], [stepRecord(a, "skipped"), stepRecord(b, "skipped")])).toMatchObject({ status: "success", result: { result: expect.stringContaining("nothing to do") } });
  });

  it("is the first failure that is one, where nothing succeeded", () => {
    expect(merge([b, a], [failed(b, "DEPENDENCY_FAILED"), failed(a, "PLUGIN_TIMEOUT")])).toMatchObject({ status: "failed", result: null, error: { code: "PLUGIN_TIMEOUT" } });
  });

  it("leaves out what would make it too large to be kept, and says so", () => {
    const large = { result: "x".repeat(9 * 1024 * 1024), data: { n: 1 } };
    const { result } = merge([a, b, c], [done(a, 1, large), done(b, 1, large), done(c)]);
    expect(result?.warnings?.[0]).toMatchObject({ code: "RESULT_TRUNCATED", step: "b" });
    expect(result?.result?.length).toBeLessThan(10 * 1024 * 1024);
    expect(result?.data).toMatchObject({ steps: { b: { data: null }, c: { data: { n: 1 } } } });
  });
});
