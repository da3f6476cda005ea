/** Checks a tenant's configuration against what the plugin's manifest says of it. */
import { Ajv, type ErrorObject, type ValidateFunction } from "ajv";
import { RE2JS } from "re2js";

/** Patterns are a plugin's and texts are a tenant's, so they run on an engine whose time grows with the text and no faster. */
const linearRegExp = Object.assign(
  (pattern: string) => {
    const compiled = RE2JS.compile(pattern);
    return { test: (text: string) => compiled.matcher(text).find() };
  },
  { code: "linearRegExp" },
);

const ajv = () => new Ajv({ strict: false, ownProperties: true, validateFormats: false, logger: false, addUsedSchema: false, code: { regExp: linearRegExp } });
const compiled = new WeakMap<object, ValidateFunction>();

/** @throws Error when the schema is not one, or has a pattern that needs more than a linear engine, such as a look-ahead. */
export function compileConfigSchema(schema: Record<string, unknown>): ValidateFunction {
  const known = compiled.get(schema);
  if (known) return known;
  const validate = ajv().compile(schema);
  compiled.set(schema, validate);
  return validate;
}

export interface ConfigIssue {
  path: string;
  message: string;
}

/** What is wrong with the configuration, by the place in it; values are not repeated. */
export function configIssues(schema: Record<string, unknown>, config: Record<string, unknown>): ConfigIssue[] {
  const validate = compileConfigSchema(schema);
  return validate(config) ? [] : (validate.errors ?? []).slice(0, 10).map(issueOf);
}

function issueOf({ instancePath, keyword, message = "is not valid", params }: ErrorObject): ConfigIssue {
  const path = ["config", ...instancePath.split("/").slice(1)].map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~")).join(".");
  if (keyword === "additionalProperties") return { path: `${path}.${String(params.additionalProperty)}`.slice(0, 200), message: "is not a known setting" };
  if (keyword === "required") return { path: `${path}.${String(params.missingProperty)}`.slice(0, 200), message: "is required" };
  const options = keyword === "enum" ? `: ${JSON.stringify(params.allowedValues).slice(1, -1)}` : "";
  return { path: path.slice(0, 200), message: `${message}${options}`.slice(0, 200) };
}
