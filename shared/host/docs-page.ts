/** Renders the API's document as one HTML page. Every text goes through Hono's escaping template; only style and script are raw. One page, one file. */
import { createHash } from "node:crypto";
import { html, raw } from "hono/html";
import { ERRORS, type ErrorCode } from "../errors.ts";
import { COPY_SCRIPT, STYLE } from "./docs-style.ts";

/** What the page reads of a JSON Schema. */
interface Shape {
  $ref?: string;
  type?: string;
  description?: string;
  format?: string;
  pattern?: string;
  const?: unknown;
  enum?: readonly unknown[];
  default?: unknown;
  examples?: readonly unknown[];
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
  maxItems?: number;
  contentEncoding?: string;
  required?: readonly string[];
  properties?: Readonly<Record<string, Shape>>;
  items?: Shape;
  anyOf?: readonly Shape[];
  additionalProperties?: boolean | Shape;
}

interface Media {
  schema?: Shape;
  example?: unknown;
  examples?: Readonly<Record<string, { summary: string; value: unknown }>>;
}

interface Reply {
  description: string;
  headers?: Readonly<Record<string, { $ref?: string; description?: string }>>;
  content?: Readonly<Record<string, Media>>;
  "x-error-codes"?: readonly string[];
}

interface Call {
  operationId: string;
  tags: readonly string[];
  summary: string;
  description: string;
  security: readonly Readonly<Record<string, readonly string[]>>[];
  parameters?: readonly {
    name: string;
    in: string;
    required?: boolean;
    description?: string;
    schema: Shape;
  }[];
  requestBody?: { content: Readonly<Record<string, Media>> };
  responses: Readonly<Record<string, Reply>>;
}

/** The part of an OpenAPI document that the page shows. */
export interface ShownDocument {
  info: {
    title: string;
    version: string;
    summary: string;
    description: string;
  };
  tags: readonly { name: string; description: string }[];
  paths: Readonly<Record<string, Readonly<Record<string, Call>>>>;
  components: { schemas: Readonly<Record<string, Shape>> };
}

type Markup = ReturnType<typeof html>;
type Look = (ref: string) => Shape;
interface Entry {
  method: string;
  path: string;
  call: Call;
}

const MAX_NESTING = 6;
const hash = (text: string) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;

/** Nothing from anywhere else, and of inline parts only these two. */
export function contentSecurityPolicy(): string {
  return `default-src 'none'; style-src ${hash(STYLE)}; script-src ${hash(COPY_SCRIPT)}; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`;
}

/** `baseUrl` stands in the examples. */
export async function docsPage(document: ShownDocument, baseUrl: string): Promise<string> {
  const { info, tags, paths, components } = document;
  const look: Look = (ref) => components.schemas[ref.slice(ref.lastIndexOf("/") + 1)] ?? {};
  const entries = Object.entries(paths).flatMap(([path, calls]) => Object.entries(calls).map(([method, call]) => ({ method, path, call })));
  const sections = tags.map((tag) => ({
    ...tag,
    id: `tag-${tag.name.toLowerCase().replaceAll(" ", "-")}`,
    entries: entries.filter(({ call }) => call.tags.includes(tag.name)),
  }));
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${info.title} · API</title>
<link rel="icon" href="data:,">
<style>${raw(STYLE)}</style>
</head>
<body>
<nav aria-label="Calls">
<a class="brand" href="#top">${info.title}<small>${info.version}</small></a>
<details open><summary>Contents</summary>
${sections.map(
  (section) => html`<h2><a href="#${section.id}">${section.name}</a></h2>
<ul>${section.entries.map(({ method, path, call }) => html`<li><a href="#${call.operationId}"><b class="m ${method}">${method.toUpperCase()}</b><span>${path}</span></a></li>`)}</ul>`,
)}
<h2><a href="#errors">Errors</a></h2>
</details>
</nav>
<main id="top">
<header><h1>${info.title}</h1><p class="lead">${info.summary}</p>${prose(info.description)}
<p>The same in a form for machines: <a href="/openapi.json">openapi.json</a>. In the examples, <code>$AAU_KEY</code> stands for your key.</p></header>
${sections.map((section) => html`<section id="${section.id}"><h2>${section.name}</h2><p>${section.description}</p>${section.entries.map((entry) => operation(entry, baseUrl, look))}</section>`)}
<section id="errors"><h2>Errors</h2><p>Every code that <code>error.code</code> can have.</p>${errorTable(Object.keys(ERRORS))}</section>
</main>
<script>${raw(COPY_SCRIPT)}</script>
</body>
</html>
`;
  return String(await page);
}

/** Paragraphs, **strong** and \`code\`: all that our descriptions use. */
function prose(text: string): Markup[] {
  return text.split(/\n{2,}/).map((paragraph) => html`<p>${inline(paragraph)}</p>`);
}

function inline(text: string): (Markup | string)[] {
  return text
    .split(/(`[^`]+`|\*\*[^*]+\*\*)/)
    .map((part) => (part.startsWith("`") ? html`<code>${part.slice(1, -1)}</code>` : part.startsWith("**") ? html`<strong>${part.slice(2, -2)}</strong>` : part));
}

function operation({ method, path, call }: Entry, baseUrl: string, look: Look): Markup {
  const body = call.requestBody?.content["application/json"];
  const replies = Object.entries(call.responses).filter(([, reply]) => !reply["x-error-codes"]);
  const codes = Object.values(call.responses).flatMap((reply) => reply["x-error-codes"] ?? []);
  return html`<article id="${call.operationId}">
<h3><b class="m ${method}">${method.toUpperCase()}</b><code>${path}</code><a class="anchor" href="#${call.operationId}" aria-label="Link to this call">#</a></h3>
<p>${inline(`${call.summary}.`)} <span class="scope">${inline(call.description)}</span></p>
${call.parameters ? html`<h4>Parameters</h4><dl>${call.parameters.map((p) => field(p.name, { ...p.schema, description: p.description }, { isRequired: p.required ?? false, place: p.in, depth: 0 }, look))}</dl>` : ""}
${body?.schema ? html`<h4>Body</h4>${fields(body.schema, 0, look)}` : ""}
<h4>Example</h4>
${curls({ method, path, call }, baseUrl, look).map(({ title, text }) => html`<figure>${title ? html`<figcaption>${title}</figcaption>` : ""}<pre tabindex="0"><code>${text}</code></pre><button type="button" class="copy">Copy</button></figure>`)}
<h4>Replies</h4>
${replies.map(([status, reply]) => goodReply(status, reply, look))}
<details class="reply bad"><summary><b>Refusals</b> ${codes.length} codes</summary>${errorTable(codes)}</details>
</article>`;
}

function goodReply(status: string, reply: Reply, look: Look): Markup {
  const [type, media] = Object.entries(reply.content ?? {})[0] ?? [];
  const headers = Object.entries(reply.headers ?? {}).filter(([, header]) => header.description !== undefined);
  const isOpenable = media?.schema !== undefined && shapeOf(media.schema, look).properties !== undefined;
  const title = html`<b class="ok">${status}</b> ${inline(reply.description)} ${type && type !== "application/json" ? html`<code>${type}</code>` : ""}`;
  const more = html`${headers.length > 0 ? html`<dl>${headers.map(([name, header]) => html`<dt><code>${name}</code> <i>header</i></dt><dd>${inline(header.description ?? "")}</dd>`)}</dl>` : ""}${isOpenable && media?.schema ? fields(media.schema, 0, look) : ""}`;
  return isOpenable || headers.length > 0 ? html`<details class="reply"><summary>${title}</summary>${more}</details>` : html`<p class="reply">${title}</p>`;
}

function errorTable(codes: readonly string[]): Markup {
  const known = codes.filter((code): code is ErrorCode => code in ERRORS).map((code) => ({ code, ...ERRORS[code] }));
  return html`<div class="scroll"><table><thead><tr><th>Status</th><th>Code</th><th>Meaning</th><th>Try again</th></tr></thead>
<tbody>${known.map((error) => html`<tr><td>${error.status}</td><td><code>${error.code}</code></td><td>${error.message}</td><td>${error.retryable ? "yes" : "no"}</td></tr>`)}</tbody></table></div>`;
}

/** The shape behind a reference, a nullable or an array. */
function shapeOf(schema: Shape, look: Look): Shape {
  if (schema.$ref) return shapeOf(look(schema.$ref), look);
  if (schema.type === "array" && schema.items) return shapeOf(schema.items, look);
  const rest = schema.anyOf?.filter((option) => option.type !== "null");
  return rest?.length === 1 && rest[0] ? shapeOf(rest[0], look) : schema;
}

function fields(schema: Shape, depth: number, look: Look): Markup | string {
  const { properties, required = [] } = shapeOf(schema, look);
  if (!properties || depth >= MAX_NESTING) return "";
  return html`<dl>${Object.entries(properties).map(([name, own]) => field(name, own, { isRequired: required.includes(name), depth }, look))}</dl>`;
}

function field(name: string, schema: Shape, { isRequired, place, depth }: { isRequired: boolean; place?: string; depth: number }, look: Look): Markup {
  const notes = constraints(schema, look);
  return html`<dt><code>${name}</code> <i>${typeText(schema, look)}</i>${place && place !== "path" ? html` <i>${place}</i>` : ""}${isRequired ? html` <em>required</em>` : ""}</dt>
<dd>${schema.description ? html`<p>${inline(schema.description)}</p>` : ""}${notes.length > 0 ? html`<p class="notes">${notes.map((note) => html`<span>${note}</span>`)}</p>` : ""}${fields(schema, depth + 1, look)}</dd>`;
}

function typeText(schema: Shape, look: Look): string {
  if (schema.$ref) return typeText(look(schema.$ref), look);
  if (schema.anyOf) return schema.anyOf.map((option) => typeText(option, look)).join(" or ");
  if (schema.type === "array") return schema.items ? `list of ${typeText(schema.items, look)}` : "list";
  if (schema.enum) return "one of";
  if (schema.format === "date-time") return "time";
  return schema.type ?? "any";
}

function constraints(schema: Shape, look: Look): (Markup | string)[] {
  const own = shapeOf(schema, look);
  const notes: (Markup | string)[] = [];
  if (own.enum) notes.push(html`${own.enum.map((value, index) => html`${index > 0 ? " · " : ""}<code>${String(value)}</code>`)}`);
  if (own.minimum !== undefined || (own.maximum !== undefined && own.maximum < Number.MAX_SAFE_INTEGER)) {
    notes.push(own.maximum === undefined || own.maximum >= Number.MAX_SAFE_INTEGER ? `at least ${own.minimum}` : `${own.minimum ?? "…"} to ${own.maximum}`);
  }
  if (own.maxLength !== undefined) notes.push(`${own.minLength ? `${own.minLength} to` : "at most"} ${own.maxLength} characters`);
  if (own.contentEncoding) notes.push(own.contentEncoding);
  if (schema.maxItems !== undefined) notes.push(`at most ${schema.maxItems} entries`);
  if (own.pattern) notes.push(html`<code>${own.pattern}</code>`);
  if (schema.default !== undefined) notes.push(html`default <code>${JSON.stringify(schema.default)}</code>`);
  if (own.examples?.[0] !== undefined) notes.push(html`such as <code>${String(own.examples[0])}</code>`);
  return notes;
}

const quote = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

function curls({ method, path, call }: Entry, baseUrl: string, look: Look): { title: string; text: string }[] {
  const media = call.requestBody?.content["application/json"];
  const bodies = media?.examples ? Object.values(media.examples) : media?.schema ? [{ summary: "", value: sample(media.schema, look) }] : [{ summary: "", value: undefined }];
  const filled = path.replace(/\{(\w+)\}/g, (_, name: string) => {
    const parameter = call.parameters?.find((p) => p.in === "path" && p.name === name);
    return String(parameter?.schema.examples?.[0] ?? name.toUpperCase());
  });
  const isStream = Object.values(call.responses).some((reply) => reply.content && "text/event-stream" in reply.content);
  const follows = "302" in call.responses ? " -L -O" : isStream ? " -N" : "";
  return bodies.map(({ summary, value }) => {
    const parts = [`curl${method === "get" ? "" : ` -X ${method.toUpperCase()}`}${follows} ${baseUrl}${filled}`];
    if (call.security.length > 0) parts.push('-H "Authorization: Bearer $AAU_KEY"');
    if (value !== undefined) parts.push("-H 'Content-Type: application/json'", `-d ${quote(JSON.stringify(value, null, 2))}`);
    return { title: summary, text: parts.join(" \\\n  ") };
  });
}

/** A small body that fits the schema: what is required, or the first member where nothing is. */
function sample(schema: Shape, look: Look): unknown {
  if (schema.$ref) return sample(look(schema.$ref), look);
  const known = schema.examples?.[0] ?? schema.default ?? schema.const ?? schema.enum?.[0];
  if (known !== undefined) return known;
  if (schema.anyOf?.[0]) return sample(schema.anyOf[0], look);
  if (schema.type === "array") return schema.items ? [sample(schema.items, look)] : [];
  if (schema.properties) {
    const names = schema.required?.length ? schema.required : Object.keys(schema.properties).slice(0, 1);
    return Object.fromEntries(names.map((name) => [name, sample(schema.properties?.[name] ?? {}, look)]));
  }
  if (schema.type === "integer" || schema.type === "number") return schema.minimum ?? 0;
  return schema.type === "boolean" ? true : "…";
}
