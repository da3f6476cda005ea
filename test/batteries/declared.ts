/** What the batteries know of each function, from its declaration and from the document that callers get. */
import { findFunctions, loadFunctions } from "../../scripts/functions.ts";
import type { AnyFunction, EventFunction, GatewayFunction, HttpFunction } from "../../shared/host/declare.ts";
import { isPublic } from "../../shared/host/needs.ts";
import { type OpenApiDocument, type Operation, openApiDocument } from "../../shared/host/openapi.ts";
import { newId, publicId } from "../../shared/ids.ts";

export const FUNCTIONS: readonly AnyFunction[] = (await loadFunctions({ kinds: ["http", "event", "cron", "gateway"] }))
  .map(({ fn }) => fn)
  .filter((fn): fn is AnyFunction => fn.kind !== "plugin");
export const FUNCTION_FILES = await findFunctions({ kinds: ["http", "event", "cron", "gateway"] });
export const HTTP = FUNCTIONS.filter((fn): fn is HttpFunction => fn.kind === "http");
export const PUBLIC = HTTP.filter((fn) => isPublic(fn) && !fn.route.includes("*"));
export const GUARDED = PUBLIC.filter((fn) => fn.scope !== "public");
export const SERVICE = HTTP.filter((fn) => fn.scope === "service");
export const EVENTS = FUNCTIONS.filter((fn): fn is EventFunction => fn.kind === "event");
export const GATEWAYS = FUNCTIONS.filter((fn): fn is GatewayFunction => fn.kind === "gateway");
export const DOCUMENT: OpenApiDocument = openApiDocument(FUNCTIONS, { version: "0.0.0" });

/** For `describe.each`: one line per function, titled by its name. */
export const byName = <F extends { name: string }>(functions: readonly F[]): [string, F][] => functions.map((fn) => [fn.name, fn]);

export function addressOf(fn: HttpFunction): { method: string; path: string } {
  const [method = "", path = ""] = fn.route.split(" ");
  return { method, path };
}

export function operationOf(fn: HttpFunction): Operation {
  const { method, path } = addressOf(fn);
  const operation = DOCUMENT.paths[path]?.[method.toLowerCase()];
  if (!operation) throw new Error(`${fn.name} is not in the document`);
  return operation;
}

/** Kinds of ids in the path of a function, by the prefix that the document shows: `task`, `key`. */
export function idPrefixesOf(fn: HttpFunction): string[] {
  const patterns = (operationOf(fn).parameters ?? []).filter((p) => p.in === "path").map((p) => p.schema.pattern ?? "");
  return patterns.flatMap((pattern) => /^\^([a-z]+)_\[/.exec(pattern)?.[1] ?? []);
}

export const randomIdLike = (prefix: string): string => publicId("task", newId("task")).replace(/^task/, prefix);

/** The path with every parameter filled: ids by `idOf`, names by something that is well-formed. */
export function pathOf(fn: HttpFunction, idOf: (prefix: string) => string = randomIdLike): string {
  const parameters = operationOf(fn).parameters ?? [];
  return addressOf(fn).path.replace(/\{(\w+)\}/g, (_, name: string) => {
    const schema = parameters.find((p) => p.in === "path" && p.name === name)?.schema;
    const prefix = /^\^([a-z]+)_\[/.exec(schema?.pattern ?? "")?.[1];
    return prefix ? idOf(prefix) : "echo";
  });
}

interface Sampled {
  $ref?: string;
  type?: unknown;
  enum?: readonly unknown[];
  anyOf?: readonly unknown[];
  /** Members of which exactly one must be there. */
  oneOf?: readonly { required: readonly string[] }[];
  examples?: unknown;
  properties?: Readonly<Record<string, unknown>>;
  required?: readonly string[];
  items?: unknown;
  minimum?: number;
}

const bodySchema = (fn: HttpFunction): Sampled => Object(operationOf(fn).requestBody?.content["application/json"]?.schema);

/** Members that every body must have. */
export const requiredMembers = (fn: HttpFunction): readonly string[] => resolved(bodySchema(fn)).required ?? [];

/** The smallest body that the document says is right. */
export function sampleBody(fn: HttpFunction): Record<string, unknown> {
  return Object(sample(bodySchema(fn)));
}

function resolved(schema: Sampled): Sampled {
  return schema.$ref ? Object(DOCUMENT.components.schemas[schema.$ref.slice(schema.$ref.lastIndexOf("/") + 1)]) : schema;
}

function sample(raw: unknown): unknown {
  const schema = resolved(Object(raw));
  if (schema.enum) return schema.enum[0];
  if (Array.isArray(schema.examples)) return schema.examples[0];
  if (schema.anyOf) return sample(schema.anyOf[0]);
  if (schema.type === "object")
    return Object.fromEntries([...(schema.required ?? []), ...(schema.oneOf?.[0]?.required ?? [])].map((name) => [name, sample(schema.properties?.[name])]));
  if (schema.type === "array") return [sample(schema.items)];
  if (schema.type === "integer" || schema.type === "number") return schema.minimum ?? 0;
  return schema.type === "boolean" ? false : "sample";
}
