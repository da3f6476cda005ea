import { createConfig, lintFromString } from "@redocly/openapi-core";
import { Ajv2020 } from "ajv/dist/2020.js";
import { describe, expect, it } from "vitest";
import { ERRORS } from "../../shared/errors.ts";
import { openApiDocument } from "../../shared/host/openapi.ts";
import { addressOf, DOCUMENT, FUNCTIONS, operationOf, PUBLIC } from "../batteries/declared.ts";

const ajv = new Ajv2020({ strict: false, validateFormats: false });
ajv.addSchema({ $id: "document", components: DOCUMENT.components });

/** A schema of the document as one that stands alone: references lead into the document. */
function validator(schema: unknown) {
  return ajv.compile(JSON.parse(JSON.stringify(schema).replaceAll('"#/components/', '"document#/components/')));
}

describe("the OpenAPI document", () => {
  it("passes every rule that Redocly recommends without a word", async () => {
    const config = await createConfig({ extends: ["recommended"] });
    const problems = await lintFromString({ source: JSON.stringify(DOCUMENT), absoluteRef: "openapi.json", config });
    expect(problems.map(({ ruleId, message, location }) => `${ruleId}: ${message} ${location[0]?.pointer}`)).toEqual([]);
  });

  it("is the same text for the same declarations, in whatever order they come", () => {
    const text = JSON.stringify(openApiDocument(FUNCTIONS, { version: "0.0.0" }));
    expect(text).toBe(JSON.stringify(DOCUMENT));
    expect(JSON.stringify(openApiDocument([...FUNCTIONS].reverse(), { version: "0.0.0" }))).toBe(text);
  });

  it("lists every public function, and nothing that is not public", () => {
    const listed = Object.entries(DOCUMENT.paths).flatMap(([path, calls]) => Object.keys(calls).map((method) => `${method.toUpperCase()} ${path}`));
    expect(listed.sort()).toEqual(PUBLIC.map((fn) => fn.route).sort());
    expect(JSON.stringify(DOCUMENT)).not.toMatch(/\/internal\//);
  });

  it("says of every operation which key it needs and how it refuses", () => {
    for (const fn of PUBLIC) {
      const operation = operationOf(fn);
      expect(operation.security, fn.name).toEqual(fn.scope === "public" ? [] : [{ apiKey: fn.scope === "any" ? [] : [fn.scope] }]);
      if (fn.scope === "public") continue;
      expect(operation.description, fn.name).toContain(fn.documented?.guard ?? `\`${fn.scope}\``);
      const codes = Object.values(operation.responses).flatMap((reply) => reply["x-error-codes"] ?? []);
      expect(codes, fn.name).toEqual(expect.arrayContaining(["AUTH_INVALID", "FORBIDDEN_SCOPE", "RATE_LIMITED", "INTERNAL", "SERVICE_UNAVAILABLE"]));
      for (const [status, reply] of Object.entries(operation.responses)) {
        for (const code of reply["x-error-codes"] ?? []) expect(String(ERRORS[code].status), `${fn.name} ${code}`).toBe(status);
        expect(Object.keys(reply.headers ?? {}), `${fn.name} ${status}`).toContain("X-Request-Id");
        if (status !== "401") expect(Object.keys(reply.headers ?? {}), `${fn.name} ${status}`).toContain("X-RateLimit-Remaining");
        if (status === "429") expect(Object.keys(reply.headers ?? {})).toContain("Retry-After");
      }
    }
  });

  it("gives examples that its own schemas take", () => {
    let count = 0;
    for (const fn of PUBLIC) {
      const body = operationOf(fn).requestBody?.content["application/json"];
      for (const { summary, value } of Object.values(body?.examples ?? {})) {
        const validate = validator(body?.schema);
        expect(validate(value), `${fn.name}: ${summary}: ${JSON.stringify(validate.errors)}`).toBe(true);
        count++;
      }
    }
    expect(count).toBeGreaterThanOrEqual(3);
  });

  it("shows bodies as callers send them", () => {
    const submission = DOCUMENT.components.schemas.Submission;
    expect(submission).toMatchObject({
      type: "object",
      additionalProperties: false,
      required: ["command"],
      properties: {
        command: { type: "string", minLength: 1, maxLength: 10_000 },
        max_cost_usd: { anyOf: [{ type: "number" }, { type: "string" }] },
        deadline: { type: "string", format: "date-time" },
        priority: { enum: ["low", "normal", "high"], default: "normal" },
      },
    });
    const validate = validator(submission);
    const file = { name: "a", media_type: "text/plain" };
    expect(validate({ command: "x", attachments: [{ ...file, content: "y" }] })).toBe(true);
    for (const wrong of [
      {},
      { command: 1 },
      { command: "x", surprise: 1 },
      { command: "x", attachments: [file] },
      { command: "x", attachments: [{ ...file, content: "y", url: "https://x.example.com" }] },
    ])
      expect(validate(wrong), JSON.stringify(wrong)).toBe(false);
    expect(operationOf(byName("task-list")).parameters).toContainEqual({
      name: "limit",
      in: "query",
      required: false,
      schema: { type: "integer", minimum: 1, maximum: 100, default: 20 },
    });
    const [id] = operationOf(byName("task-poll")).parameters ?? [];
    expect(id).toMatchObject({ name: "task_id", in: "path", required: true, schema: { type: "string", pattern: expect.stringMatching(/^\^task_/) } });
    expect(new RegExp(id?.schema.pattern ?? "").test(String(id?.schema.examples?.[0]))).toBe(true);
  });

  it("shows replies as open objects, so that they can grow", () => {
    for (const [name, schema] of Object.entries(DOCUMENT.components.schemas))
      if (name !== "Submission") expect(JSON.stringify(schema), name).not.toContain('additionalProperties":false');
  });
});

function byName(name: string) {
  const fn = PUBLIC.find((candidate) => candidate.name === name);
  if (!fn) throw new Error(`there is no ${name}`);
  expect(addressOf(fn).path).not.toBe("");
  return fn;
}
