/**
 * The schemas that a cluster would hold a manifest against, made strict: a field that they do not know is an error here, where the
 * cluster would drop it in silence.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Ajv, type ValidateFunction } from "ajv";
import * as v from "valibot";
import { parseAllDocuments } from "yaml";
import { ROOT } from "../../scripts/functions.ts";

export const SCHEMAS = join(ROOT, "../shared/crds");
export const hasSchemas = existsSync(SCHEMAS);

const Dictionary = v.record(v.string(), v.unknown());
type Dictionary = v.InferOutput<typeof Dictionary>;

const Definition = v.object({
  kind: v.literal("CustomResourceDefinition"),
  spec: v.object({
    group: v.string(),
    names: v.object({ kind: v.string() }),
    versions: v.array(v.object({ name: v.string(), served: v.boolean(), schema: v.object({ openAPIV3Schema: Dictionary }) })),
  }),
});
const OpenApi = v.object({ components: v.object({ schemas: v.record(v.string(), Dictionary) }) });
const GroupVersionKinds = v.array(v.object({ group: v.string(), version: v.string(), kind: v.string() }));

/** Structural schemas as JSON Schema: objects with known properties are closed, and Kubernetes' own extensions are spelt out. */
function strict(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(strict);
  if (!v.is(Dictionary, schema)) return schema;
  if (schema["x-kubernetes-int-or-string"] === true || schema.format === "int-or-string") return { type: ["integer", "string"] };
  const result: Dictionary = {};
  for (const [key, value] of Object.entries(schema)) {
    if (key.startsWith("x-") || ["description", "example", "default", "format"].includes(key)) continue;
    // Go's dialect has inline flags; a pattern that JavaScript cannot read is left to the cluster.
    if (key === "pattern" && String(value).includes("(?i)")) continue;
    result[key] = key === "properties" ? Object.fromEntries(Object.entries(v.parse(Dictionary, value)).map(([name, property]) => [name, strict(property)])) : strict(value);
  }
  const isOpen = schema["x-kubernetes-preserve-unknown-fields"] === true || schema["x-kubernetes-embedded-resource"] === true || "additionalProperties" in schema;
  if ("properties" in schema && !isOpen) result.additionalProperties = false;
  return result;
}

/** What every resource has, and a definition may leave out. */
function withMetadata(schema: Dictionary): Dictionary {
  const properties = v.parse(Dictionary, schema.properties ?? {});
  return {
    ...schema,
    properties: {
      apiVersion: { type: "string" },
      kind: { type: "string" },
      ...properties,
      metadata: { type: "object", "x-kubernetes-preserve-unknown-fields": true },
    },
  };
}

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => (entry.isDirectory() ? filesBelow(join(folder, entry.name)) : [join(folder, entry.name)]));
}

/** Gives validators by `apiVersion kind`; several where several releases of a definition are at hand. */
export function readSchemas(): (key: string) => ValidateFunction[] {
  const ajv = new Ajv({ strict: false, allErrors: true, validateFormats: false });
  const found = new Map<string, Dictionary[]>();
  const add = (key: string, schema: Dictionary) => found.set(key, [...(found.get(key) ?? []), schema]);

  for (const file of filesBelow(SCHEMAS).filter((name) => name.endsWith(".yaml"))) {
    for (const document of parseAllDocuments(readFileSync(file, "utf8"))) {
      const parsed = v.safeParse(Definition, document.toJS());
      if (!parsed.success) continue;
      const { group, names, versions } = parsed.output.spec;
      for (const { name, served, schema } of versions) {
        if (served) add(`${group}/${name} ${names.kind}`, v.parse(Dictionary, strict(withMetadata(schema.openAPIV3Schema))));
      }
    }
  }
  for (const [index, file] of filesBelow(SCHEMAS)
    .filter((name) => name.endsWith("_openapi.json"))
    .entries()) {
    const { schemas } = v.parse(OpenApi, JSON.parse(readFileSync(file, "utf8"))).components;
    const id = `kubernetes-${index}`;
    ajv.addSchema({ $id: id, components: { schemas: Object.fromEntries(Object.entries(schemas).map(([name, schema]) => [name, strict(schema)])) } });
    for (const [name, schema] of Object.entries(schemas)) {
      const kinds = v.safeParse(GroupVersionKinds, schema["x-kubernetes-group-version-kind"]);
      if (!kinds.success || kinds.output.length !== 1) continue;
      for (const { group, version, kind } of kinds.output) {
        const key = `${group === "" ? version : `${group}/${version}`} ${kind}`;
        if (!found.has(key)) add(key, { $ref: `${id}#/components/schemas/${name}` });
      }
    }
  }
  return (key) => (found.get(key) ?? []).map((schema) => ajv.compile(schema));
}
