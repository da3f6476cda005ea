/**
 * Finds everything that is deployed. The tree is the registry: one file of functions/{api,events,cron,gateways} or one folder of
 * functions/plugins is one function, and its file name is its name everywhere else.
 */
import { type Dirent, existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import * as v from "valibot";
import type { AnyFunction } from "../shared/host/declare.ts";
import type { Plugin } from "../shared/sdk/src/define-plugin.ts";

export type FunctionKind = AnyFunction["kind"] | Plugin["kind"];

/** A file that has not been imported yet. */
export interface FunctionFile {
  name: string;
  kind: FunctionKind;
  /** Absolute path of the module whose default export is the declaration. */
  file: string;
}

export interface LoadedFunction extends FunctionFile {
  fn: AnyFunction | Plugin;
}

export interface LoadOptions {
  /** The folder that holds `functions/`; the repository unless said. */
  root?: string;
  /** Only these; plugins take a second to import, so who needs none should say so. */
  kinds?: readonly FunctionKind[];
}

export const ROOT = fileURLToPath(new URL("..", import.meta.url));

const FOLDERS = {
  http: "api",
  event: "events",
  cron: "cron",
  gateway: "gateways",
  plugin: "plugins",
} as const satisfies Record<FunctionKind, string>;

const byName = (a: { name: string }, b: { name: string }) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0);

const Name = v.pipe(v.string(), v.regex(/^[a-z][a-z0-9]*(-[a-z0-9]+)*$/, "must be kebab case"), v.maxLength(63));
const common = {
  name: Name,
  summary: v.pipe(v.string(), v.minLength(1)),
  needs: v.array(v.string()),
  scale: v.object({
    min: v.pipe(v.number(), v.integer(), v.minValue(0)),
    max: v.pipe(v.number(), v.integer(), v.minValue(0)),
    concurrency: v.pipe(v.number(), v.integer(), v.minValue(0)),
  }),
  timeoutSec: v.optional(v.pipe(v.number(), v.integer(), v.minValue(45, "must be at least 45"), v.maxValue(600, "must be at most 600"))),
  memoryMib: v.optional(v.pipe(v.number(), v.integer(), v.minValue(32))),
};
const callable = v.function();
const RouteText = v.pipe(v.string(), v.regex(/^(GET|POST|PUT|PATCH|DELETE) \//, "must be a method and a path"));

/** What generators and hosts rely on; the compiler has checked the rest. */
const Declaration = v.variant("kind", [
  v.object({
    ...common,
    kind: v.literal("http"),
    route: RouteText,
    scope: v.string(),
    replies: v.record(v.string(), v.unknown()),
    handle: callable,
  }),
  v.object({
    ...common,
    kind: v.literal("event"),
    event: v.string(),
    stream: v.string(),
    handle: callable,
  }),
  v.object({
    ...common,
    kind: v.literal("cron"),
    schedule: v.string(),
    run: callable,
  }),
  v.object({
    ...common,
    kind: v.literal("gateway"),
    audience: v.string(),
    routes: v.record(RouteText, callable),
  }),
  v.object({
    kind: v.literal("plugin"),
    name: Name,
    manifest: v.object({
      name: v.string(),
      version: v.string(),
      timeout_seconds: v.number(),
    }),
  }),
]);

function isDeclaration(value: unknown): value is AnyFunction | Plugin {
  return v.is(Declaration, value);
}

async function entries(folder: string): Promise<Dirent[]> {
  return existsSync(folder) ? await readdir(folder, { withFileTypes: true }) : [];
}

function fileOf(kind: FunctionKind, folder: string, entry: Dirent): FunctionFile | null {
  if (kind !== "plugin") {
    if (!entry.isFile() || !entry.name.endsWith(".ts") || /\.(generated|d)\.ts$/.test(entry.name)) return null;
    return {
      name: basename(entry.name, ".ts"),
      kind,
      file: join(folder, entry.name),
    };
  }
  if (!entry.isDirectory()) return null;
  const candidates = ["index.ts", `${entry.name}.ts`].map((name) => join(folder, entry.name, name));
  const file = candidates.find((candidate) => existsSync(candidate));
  return file ? { name: entry.name, kind, file } : null;
}

/** The files of all functions, sorted by name, without importing them. */
export async function findFunctions({ root = ROOT, kinds = ["http", "event", "cron", "gateway", "plugin"] }: LoadOptions = {}): Promise<FunctionFile[]> {
  const found: FunctionFile[] = [];
  for (const kind of kinds) {
    const folder = join(root, "functions", FOLDERS[kind]);
    for (const entry of await entries(folder)) {
      const file = fileOf(kind, folder, entry);
      if (file) found.push(file);
    }
  }
  found.sort(byName);
  const twice = found.find((file, index) => found[index + 1]?.name === file.name);
  if (twice) throw new Error(`Two functions are called ${twice.name}.`);
  return found;
}

/** Imports one function and holds it to its place in the tree. */
export async function loadFunction(found: FunctionFile): Promise<LoadedFunction> {
  const module: unknown = await import(/* @vite-ignore */ pathToFileURL(found.file).href);
  const fn = typeof module === "object" && module !== null && "default" in module ? module.default : undefined;
  if (!isDeclaration(fn)) {
    const { issues } = v.safeParse(Declaration, fn);
    const why = issues?.map((issue) => `${v.getDotPath(issue) ?? "default export"}: ${issue.message}`).join("; ");
    throw new Error(`${found.file} does not export a function by default. ${why}`);
  }
  if (fn.kind !== found.kind) throw new Error(`${found.file} declares a function of kind ${fn.kind}; it belongs into functions/${FOLDERS[fn.kind]}.`);
  if (fn.name !== found.name) throw new Error(`${found.file} declares the name ${fn.name}; the file's name is the function's name.`);
  return { ...found, fn };
}

/** Every function's declaration, sorted by name. */
export async function loadFunctions(options: LoadOptions = {}): Promise<LoadedFunction[]> {
  return Promise.all((await findFunctions(options)).map(loadFunction));
}
