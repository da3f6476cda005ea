/** Schemas of declarations as JSON Schema: requests as callers send them, replies as callers see them. */
import { type JsonSchema, toJsonSchema } from "@valibot/to-json-schema";
import * as v from "valibot";
import { ApiKeyView, ApiKeyWithPlaintext } from "../access/api-keys.ts";
import { PluginDetail, PluginSummary } from "../registry/plugin-view.ts";
import { Submission } from "../tasks/submission.ts";
import { TaskSummary, TaskView } from "../tasks/task-view.ts";
import type { Schema } from "./declare.ts";

/** Shapes that are worth a name of their own; all others stand where they are used. */
const NAMED: Readonly<Record<string, Schema>> = {
  Submission,
  Task: TaskView,
  TaskSummary,
  ApiKey: ApiKeyView,
  ApiKeyWithPlaintext,
  Plugin: PluginDetail,
  PluginSummary,
};

type Side = "request" | "reply";
export type Convert = (schema: Schema, side: Side) => JsonSchema;

/** Converts schemas, and collects those that have a name in `components`. */
export function converter(components: Record<string, JsonSchema>): Convert {
  const plain = (schema: Schema, side: Side, self?: string): JsonSchema => {
    const definitions = Object.fromEntries(Object.entries(NAMED).filter(([name]) => name !== self));
    const {
      $schema: _,
      $defs: __,
      ...converted
    } = toJsonSchema(schema, {
      typeMode: "input",
      errorMode: "ignore",
      definitions,
      overrideRef: ({ referenceId }) => {
        const named = NAMED[referenceId];
        if (named && !components[referenceId]) {
          components[referenceId] = {};
          components[referenceId] = plain(named, side, referenceId);
        }
        return `#/components/schemas/${referenceId}`;
      },
    });
    return side === "reply" ? open(converted) : converted;
  };
  return (schema, side) => plain(schema, side);
}

/** Replies may grow members; a client that was generated from this document must not break on them. */
function open(schema: JsonSchema): JsonSchema {
  return JSON.parse(
    JSON.stringify(schema, (_, value: unknown) => (isObject(value) && value.additionalProperties === false ? { ...value, additionalProperties: undefined } : value)),
  );
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null && !Array.isArray(value);

export interface Member {
  name: string;
  schema: JsonSchema;
  required: boolean;
}

export function members(schema: Schema | undefined, convert: Convert): Member[] {
  if (!schema) return [];
  const { properties = {}, required = [] } = convert(schema, "request");
  const entries = v.safeParse(WithEntries, schema);
  return Object.entries(properties).map(([name, own]) => {
    const bounds = entries.success ? numberBounds(entries.output.entries[name]) : null;
    const member = typeof own === "boolean" ? {} : own;
    return {
      name,
      schema: bounds ? numeric(member, bounds) : member,
      required: required.includes(name),
    };
  });
}

const PipeItem = v.object({
  type: v.string(),
  operation: v.optional(v.unknown()),
  requirement: v.optional(v.unknown()),
});
const WithEntries = v.object({ entries: v.record(v.string(), v.unknown()) });
const Piped = v.union([
  v.object({ pipe: v.array(PipeItem) }),
  v.pipe(
    v.object({ wrapped: v.object({ pipe: v.array(PipeItem) }) }),
    v.transform(({ wrapped }) => wrapped),
  ),
]);

/** The bounds of a number that travels as text in the query; null for any other schema. Callers think of it as a number. */
function numberBounds(entry: unknown): Pick<JsonSchema, "minimum" | "maximum"> | null {
  const piped = v.safeParse(Piped, entry);
  if (!piped.success || !piped.output.pipe.some((item) => item.type === "transform" && item.operation === Number)) return null;
  const bound = (type: string) => piped.output.pipe.find((item) => item.type === type)?.requirement;
  const [minimum, maximum] = [bound("min_value") ?? 0, bound("max_value")];
  return {
    ...(typeof minimum === "number" ? { minimum } : {}),
    ...(typeof maximum === "number" ? { maximum } : {}),
  };
}

function numeric({ pattern: _, default: text, ...schema }: JsonSchema, bounds: Pick<JsonSchema, "minimum" | "maximum">): JsonSchema {
  return {
    ...schema,
    type: "integer",
    ...bounds,
    ...(typeof text === "string" ? { default: Number(text) } : {}),
  };
}
