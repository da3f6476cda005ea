/** What a plugin may say of its configuration: JSON Schema without references, so that checking costs at most its size times the configuration's. */
import * as v from "valibot";

const MAX_BYTES = 32 * 1024;
const MAX_DEPTH = 24;
const MAX_PATTERN = 500;

const VALUES = ["$schema", "$comment", "title", "description", "default", "examples", "deprecated", "format", "type", "enum", "const", "required"];
const BOUNDS = ["minProperties", "maxProperties", "minItems", "maxItems", "minLength", "maxLength", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];
const PLAIN = new Set([...VALUES, ...BOUNDS]);
/** Keywords that hold one schema, or true or false. */
const SCHEMA = new Set(["additionalProperties", "propertyNames", "additionalItems", "contains", "not"]);
const HOLDING = new Set([...SCHEMA, "anyOf", "oneOf", "allOf", "items", "properties"]);
const POISON = new Set([".__proto__", ".constructor", ".prototype"]);

/** The schemas that a keyword holds, by their names under it; null where there should be some. */
function schemasIn(keyword: string, value: unknown): [string, unknown][] | null {
  if (SCHEMA.has(keyword) || (keyword === "items" && !Array.isArray(value))) return [["", value]];
  if (keyword !== "properties") return Array.isArray(value) ? value.map((schema, at) => [`.${at}`, schema]) : null;
  if (typeof value !== "object" || value === null || Array.isArray(value)) return null;
  return Object.entries(value).map(([name, schema]) => [`.${name.slice(0, 60)}`, schema]);
}

/** Null, or what is wrong with it. */
function wrongWith(schema: unknown, path: string, depth: number): string | null {
  if (typeof schema === "boolean") return null;
  if (typeof schema !== "object" || schema === null || Array.isArray(schema)) return `${path} must be a JSON Schema`;
  if (depth > MAX_DEPTH) return `is nested more than ${MAX_DEPTH} levels deep`;
  for (const [keyword, value] of Object.entries(schema)) {
    const at = `${path}.${keyword}`;
    if (PLAIN.has(keyword)) continue;
    if (keyword === "pattern") {
      if (typeof value !== "string" || value.length > MAX_PATTERN) return `${at} must be a text of at most ${MAX_PATTERN} characters`;
      continue;
    }
    if (!HOLDING.has(keyword)) return `${path} holds ${keyword.slice(0, 40)}, which is not supported`;
    const schemas = schemasIn(keyword, value);
    if (schemas === null) return `${at} must hold schemas`;
    for (const [name, inner] of schemas) {
      if (POISON.has(name)) return `${at} names ${name.slice(1)}, which no configuration can hold`;
      const wrong = wrongWith(inner, at + name, depth + 1);
      if (wrong !== null) return wrong;
    }
  }
  return null;
}

export const ConfigSchema = v.pipe(
  v.record(v.string(), v.unknown()),
  v.rawCheck(({ dataset, addIssue }) => {
    if (!dataset.typed) return;
    const wrong = wrongWith(dataset.value, "config_schema", 1) ?? (JSON.stringify(dataset.value).length > MAX_BYTES ? `is larger than ${MAX_BYTES} bytes` : null);
    if (wrong !== null) addIssue({ message: wrong });
  }),
);
