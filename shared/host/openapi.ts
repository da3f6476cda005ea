/**
 * The OpenAPI 3.1 document of all public functions, from their declarations alone. Bodies are shown as callers send them and
 * replies as callers see them; refusals come from the one table of errors. The same declarations always give the same text.
 * One file, because the parts of a document refer to each other.
 */
import type { JsonSchema } from "@valibot/to-json-schema";
import { SCOPES } from "../access/caller.ts";
import { ERRORS, type ErrorCode } from "../errors.ts";
import type { AnyFunction, HttpFunction } from "./declare.ts";
import { isPublic } from "./needs.ts";
import { type Convert, converter, members } from "./openapi-schemas.ts";

export interface Parameter {
  name: string;
  in: string;
  required?: boolean;
  description?: string;
  schema: JsonSchema;
}

export interface MediaType {
  schema?: JsonSchema;
  example?: unknown;
  examples?: Record<string, { summary: string; value: unknown }>;
}

export interface ApiReply {
  description: string;
  headers?: Record<string, { $ref: string } | { description: string; schema: JsonSchema }>;
  content?: Record<string, MediaType>;
  /** The codes of `error.code` that this status stands for here. */
  "x-error-codes"?: ErrorCode[];
}

export interface Operation {
  operationId: string;
  tags: string[];
  summary: string;
  description: string;
  security: Record<string, string[]>[];
  parameters?: Parameter[];
  requestBody?: { required: true; content: Record<string, MediaType> };
  responses: Record<string, ApiReply>;
}

export interface OpenApiDocument {
  openapi: string;
  info: {
    title: string;
    version: string;
    summary: string;
    description: string;
    license: { name: string; url: string };
  };
  servers: { url: string; description: string }[];
  tags: { name: string; description: string }[];
  paths: Record<string, Record<string, Operation>>;
  components: {
    securitySchemes: Record<string, object>;
    headers: Record<string, object>;
    schemas: Record<string, JsonSchema>;
  };
}

/** By the first segment of the path after the version. */
const TAGS: Readonly<Record<string, { name: string; description: string }>> = {
  tasks: {
    name: "Tasks",
    description: "Submit commands, follow them, fetch what they made.",
  },
  plugins: {
    name: "Plugins",
    description: "The catalogue: what the platform can do for you.",
  },
  subscriptions: {
    name: "Subscriptions",
    description: "Which plugins your tenant runs, and within what quota. Every plugin can be tried ten times without one.",
  },
  usage: {
    name: "Usage",
    description: "What was run, what it took and what it costs, up to this moment.",
  },
  invoices: {
    name: "Invoices",
    description: "Closed months, line by line, and what the open one comes to so far.",
  },
  "api-keys": {
    name: "API keys",
    description: "Keys of your tenant and what each may do.",
  },
  gdpr: {
    name: "Personal data",
    description: "Have a person's data handed out or erased.",
  },
  "": {
    name: "This document",
    description: "The description of the API, for machines and for people. Needs no key.",
  },
};

const INTRODUCTION = `Send a command in plain language; the platform finds the plugin that answers it, runs it and meters it.

**Keys.** Send \`Authorization: Bearer sk_live_…\`. A key holds scopes; each call names the one that it needs.

**Errors** all have one shape: \`{"error": {"code", "message", "retryable", "request_id"}}\`. Quote the \`request_id\`, which is also in the \`X-Request-Id\` header of every answer; send that header to choose it (8 to 64 of A-Z, a-z, 0-9, _ and -; it stands in our logs, so let it name nobody). An unknown address answers 404, a known one with another method 405.

**Limits** count in a sliding minute. Every answer to a known key carries \`X-RateLimit-Limit\`, \`X-RateLimit-Remaining\` and \`X-RateLimit-Reset\`; a 429 also says \`Retry-After\`.

**Lists** give \`next_cursor\`; send it as \`cursor\` with the same filters for the next page. Times are RFC 3339 in UTC, money is in USD with six decimals.`;

const METHODS = ["post", "get", "put", "patch", "delete"];

/** `version` is the platform's release. */
export function openApiDocument(functions: readonly AnyFunction[], { version }: { version: string }): OpenApiDocument {
  const shown = functions.filter((fn): fn is HttpFunction => fn.kind === "http" && isPublic(fn) && !fn.route.includes("*"));
  const schemas: Record<string, JsonSchema> = { Error: ERROR_SCHEMA };
  const convert = converter(schemas);
  const paths: OpenApiDocument["paths"] = {};
  for (const { method, path, fn } of shown.map(addressed).sort((a, b) => (a.path === b.path ? METHODS.indexOf(a.method) - METHODS.indexOf(b.method) : a.path < b.path ? -1 : 1))) {
    paths[path] = { ...paths[path], [method]: operation(fn, path, convert) };
  }
  const used = new Set(shown.map((fn) => tagOf(addressed(fn).path).name));
  return {
    openapi: "3.1.0",
    info: {
      title: "AI Agents Universe",
      version,
      summary: "One API in front of any number of AI agents.",
      description: INTRODUCTION,
      license: { name: "Proprietary", url: "https://aau.io/terms" },
    },
    servers: [{ url: "/", description: "The host that serves this document." }],
    tags: [
      ...Object.values(TAGS).filter((tag) => used.delete(tag.name)),
      ...[...used].sort().map((name) => ({
        name,
        description: `Calls that concern ${name.toLowerCase()}.`,
      })),
    ],
    paths,
    components: {
      securitySchemes: {
        apiKey: {
          type: "http",
          scheme: "bearer",
          description: `An API key, \`sk_live_…\` or \`sk_test_…\`. Scopes: ${SCOPES.map((scope) => `\`${scope}\``).join(", ")}.`,
        },
      },
      headers: HEADERS,
      schemas: Object.fromEntries(Object.entries(schemas).sort(([a], [b]) => (a < b ? -1 : 1))),
    },
  };
}

function addressed(fn: HttpFunction): {
  method: string;
  path: string;
  fn: HttpFunction;
} {
  const [method = "", path = ""] = fn.route.split(" ");
  return { method: method.toLowerCase(), path, fn };
}

function tagOf(path: string): { name: string } {
  const [, version, resource = ""] = path.split("/");
  if (!/^v\d+$/.test(version ?? "")) return { name: TAGS[""]?.name ?? "" };
  return (
    TAGS[resource] ?? {
      name: `${resource.charAt(0).toUpperCase()}${resource.slice(1).replaceAll("-", " ")}`,
    }
  );
}

function operation(fn: HttpFunction, path: string, convert: Convert): Operation {
  const needsKey = fn.scope !== "public";
  const parameters: Parameter[] = [
    ...members(fn.params, convert).map(({ name, schema }) => described({ name, in: "path", required: true, schema })),
    ...members(fn.query, convert).map(({ name, schema, required }) => described({ name, in: "query", required, schema })),
    ...Object.entries(fn.headers ?? {}).map(([name, description]) => ({
      name,
      in: "header",
      required: false,
      description,
      schema: { type: "string" as const },
    })),
  ];
  return {
    operationId: fn.name,
    tags: [tagOf(path).name],
    summary: fn.summary.replace(/\.$/, ""),
    description: fn.documented?.guard ?? (needsKey ? `Needs a ${fn.liveKeyOnly ? "live " : ""}key with the scope \`${fn.scope}\`.` : "Needs no key."),
    security: needsKey ? [{ apiKey: fn.scope === "any" ? [] : [fn.scope] }] : [],
    ...(parameters.length > 0 ? { parameters } : {}),
    ...(fn.body
      ? {
          requestBody: {
            required: true,
            content: {
              "application/json": {
                schema: convert(fn.body, "request"),
                ...(fn.documented?.requestExamples ? { examples: fn.documented.requestExamples } : {}),
              },
            },
          },
        }
      : {}),
    responses: { ...goodReplies(fn, convert), ...refusals(fn) },
  };
}

const REASONS: Readonly<Record<number, string>> = {
  200: "OK",
  201: "Created",
  202: "Accepted",
  204: "Done; there is no body",
  302: "The answer is at the address in `Location`",
};

function goodReplies(fn: HttpFunction, convert: Convert): Record<string, ApiReply> {
  const replies: Record<string, ApiReply> = {};
  const own = Object.entries(fn.documented?.replyHeaders ?? {}).map(([name, description]) => [name, { description, schema: { type: "string" as const } }]);
  for (const [status, schema] of Object.entries(fn.replies)) {
    const { produces, replyExamples } = fn.documented ?? {};
    const example = replyExamples?.[Number(status)];
    const body: Record<string, MediaType> | null = schema
      ? {
          "application/json": {
            schema: convert(schema, "reply"),
            ...(example === undefined ? {} : { example }),
          },
        }
      : produces && Number(status) < 300
        ? {
            [produces]: {
              schema: produces === "application/json" ? { type: "object" } : { type: "string" },
            },
          }
        : null;
    replies[status] = {
      description: REASONS[Number(status)] ?? "OK",
      headers: { ...Object.fromEntries(own), ...hostHeaders(fn) },
      ...(body ? { content: body } : {}),
    };
  }
  return replies;
}

/** Every code that an operation may refuse with, and so what a client has to be ready for. */
export function errorCodesOf(fn: HttpFunction): ErrorCode[] {
  // Headers can be too large where no body is.
  const codes = new Set<ErrorCode>(["PAYLOAD_TOO_LARGE", "INTERNAL", "SERVICE_UNAVAILABLE", ...(fn.documented?.refusals ?? [])]);
  const add = (isSo: unknown, ...more: ErrorCode[]) => {
    if (isSo) for (const code of more) codes.add(code);
  };
  add(fn.scope !== "public", "AUTH_INVALID", "FORBIDDEN_SCOPE", "RATE_LIMITED");
  add(fn.params, "NOT_FOUND");
  add(fn.query || fn.body || fn.headers, "INVALID_INPUT");
  add(fn.body, "UNSUPPORTED_MEDIA_TYPE");
  return Object.keys(ERRORS).filter((code): code is ErrorCode => codes.has(code as ErrorCode));
}

function refusals(fn: HttpFunction): Record<string, ApiReply> {
  const replies: Record<string, ApiReply> = {};
  for (const code of errorCodesOf(fn)) {
    const { status, message } = ERRORS[code];
    const line = `\`${code}\`: ${message}`;
    const known = replies[status];
    if (known) {
      known.description += `  \n${line}`;
      known["x-error-codes"]?.push(code);
      continue;
    }
    const headers = {
      ...(status === 429 || status === 503 ? { "Retry-After": { $ref: "#/components/headers/Retry-After" } } : {}),
      ...hostHeaders(fn, status),
    };
    replies[status] = {
      description: line,
      headers,
      content: {
        "application/json": { schema: { $ref: "#/components/schemas/Error" } },
      },
      "x-error-codes": [code],
    };
  }
  return replies;
}

const HEADERS = {
  "Retry-After": {
    description: "Seconds after which another try may succeed.",
    schema: { type: "integer", minimum: 1 },
  },
  "X-RateLimit-Limit": {
    description: "Requests that the tenant may make in any sliding minute.",
    schema: { type: "integer" },
  },
  "X-RateLimit-Remaining": {
    description: "Requests that are left now.",
    schema: { type: "integer" },
  },
  "X-RateLimit-Reset": {
    description: "When a request leaves the window, in seconds since the epoch.",
    schema: { type: "integer" },
  },
  "X-Request-Id": {
    description: "Names this request in our logs.",
    schema: { type: "string" },
  },
};

function hostHeaders(fn: HttpFunction, status = 200): Record<string, { $ref: string }> {
  const names = Object.keys(HEADERS).filter((name) => name === "X-Request-Id" || (name.startsWith("X-RateLimit-") && fn.scope !== "public" && status !== 401));
  return Object.fromEntries(names.map((name) => [name, { $ref: `#/components/headers/${name}` }]));
}

const ERROR_SCHEMA: JsonSchema = {
  type: "object",
  required: ["error"],
  properties: {
    error: {
      type: "object",
      description: "Some codes add members, such as `issues`, `candidates` or `upgrade_url`.",
      required: ["code", "message", "retryable", "request_id"],
      properties: {
        code: { type: "string", enum: Object.keys(ERRORS) },
        message: {
          type: "string",
          description: "For people; its wording may change.",
        },
        retryable: {
          type: "boolean",
          description: "Whether the same request may succeed later.",
        },
        request_id: {
          type: "string",
          examples: ["req_01kw76mq00f88rpcgzy4pyyymb"],
        },
      },
    },
  },
};

/** A description stands at the parameter, where readers look for it. */
function described({ schema: { description, ...schema }, ...parameter }: Parameter): Parameter {
  return { ...parameter, ...(description ? { description } : {}), schema };
}
