import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import * as v from "valibot";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { parse, parseAllDocuments } from "yaml";
import { type LoadedFunction, loadFunctions, ROOT } from "../../scripts/functions.ts";
import { isSecret, VARIABLE_NAMES } from "../../scripts/gen/environment.ts";
import { type Generator, plan, write } from "../../scripts/gen/generate.ts";
import { routeFiles } from "../../scripts/gen/routes.ts";
import { splitSchedule } from "../../scripts/gen/sources.ts";
import { GENERATORS } from "../../scripts/gen.ts";
import { http, noContent, type Route } from "../../shared/host/declare.ts";
import { hasSchemas, readSchemas } from "./schemas.ts";

const FIXTURES = fileURLToPath(new URL("fixtures", import.meta.url));
const MANIFESTS = GENERATORS.filter((generator: Generator) => ("folder" in generator ? generator.folder : generator.path).startsWith("knative/"));

const Text = v.string();
const EnvVar = v.object({
  name: Text,
  valueFrom: v.optional(v.object({ secretKeyRef: v.optional(v.object({ name: Text, key: Text })), configMapKeyRef: v.optional(v.object({ name: Text, key: Text })) })),
});
const KnativeService = v.object({
  metadata: v.object({ name: Text, labels: v.record(Text, Text) }),
  spec: v.object({
    template: v.object({
      metadata: v.object({ annotations: v.record(Text, Text) }),
      spec: v.object({
        containerConcurrency: v.number(),
        timeoutSeconds: v.number(),
        responseStartTimeoutSeconds: v.optional(v.number()),
        containers: v.tuple([v.object({ args: v.array(Text), env: v.array(EnvVar) })]),
      }),
    }),
  }),
});
const Rule = v.object({
  matches: v.array(v.object({ method: v.optional(Text), path: v.object({ type: v.picklist(["Exact", "PathPrefix", "RegularExpression"]), value: Text }) })),
  filters: v.array(v.object({ urlRewrite: v.optional(v.object({ hostname: Text })), requestHeaderModifier: v.optional(v.object({ remove: v.array(Text) })) })),
  timeouts: v.object({ request: Text }),
});
type Rule = v.InferOutput<typeof Rule>;
const PublicRoute = v.object({
  metadata: v.object({ name: Text, labels: v.object({ "aau.io/public": v.literal("true") }) }),
  spec: v.object({ rules: v.array(Rule) }),
});

let functions: LoadedFunction[] = [];
let root = "";

beforeAll(async () => {
  functions = await loadFunctions({ root: FIXTURES });
  root = await mkdtemp(join(tmpdir(), "manifests-"));
  await write(await plan(MANIFESTS, functions, root), root);
}, 30_000);
afterAll(() => rm(root, { recursive: true, force: true }));

const read = (path: string) => readFile(join(root, path), "utf8");
const service = async (name: string) => v.parse(KnativeService, parse(await read(`knative/services/${name}.yaml`)));

async function envOf(name: string): Promise<string[]> {
  const { spec } = await service(name);
  return spec.template.spec.containers[0].env.map((variable) => variable.name);
}

async function yamlFiles(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true });
  return entries.filter((name) => name.endsWith(".yaml")).map((name) => join(folder, name));
}

async function documents(files: string[]): Promise<{ file: string; value: unknown }[]> {
  const all = await Promise.all(files.map(async (file) => parseAllDocuments(await readFile(file, "utf8")).map((document) => ({ file, value: document.toJS() as unknown }))));
  return all.flat();
}

describe("the generator", () => {
  it("has nothing to say when nothing drifted", async () => {
    expect(await plan(MANIFESTS, functions, root)).toEqual([]);
  });

  it("lists what was changed by hand, what is missing, and what nobody declares any more", async () => {
    const other = await mkdtemp(join(tmpdir(), "drift-"));
    await write(await plan(MANIFESTS, functions, other), other);
    await writeFile(join(other, "knative/services/sample-list.yaml"), "by: hand\n");
    await writeFile(join(other, "knative/services/sample-gone.yaml"), "old: true\n");
    await rm(join(other, "knative/routes/echoes.yaml"));
    const changes = await plan(MANIFESTS, functions, other);
    expect(changes.map(({ kind, path }) => `${kind} ${path}`)).toEqual([
      "add knative/routes/echoes.yaml",
      "remove knative/services/sample-gone.yaml",
      "change knative/services/sample-list.yaml",
    ]);
    await write(changes, other);
    expect(await plan(MANIFESTS, functions, other)).toEqual([]);
    expect(existsSync(join(other, "knative/services/sample-gone.yaml"))).toBe(false);
    await rm(other, { recursive: true });
  });

  it("sees a declaration that changed", async () => {
    const changed = functions.map((loaded) =>
      loaded.fn.kind === "http" && loaded.name === "sample-list" ? { ...loaded, fn: { ...loaded.fn, scale: { min: 3, max: 9, concurrency: 7 } } } : loaded,
    );
    expect((await plan(MANIFESTS, changed, root)).map(({ path }) => path)).toEqual(["knative/services/sample-list.yaml"]);
  });

  it("hands a generator that owns a part of a file its present text", async () => {
    const other = await mkdtemp(join(tmpdir(), "part-"));
    await writeFile(join(other, "README.md"), "mine [] mine\n");
    const part: Generator = { path: "README.md", make: (all, current) => current.replace(/\[.*\]/, `[${all.length}]`) };
    await write(await plan([part], functions, other), other);
    expect(await readFile(join(other, "README.md"), "utf8")).toBe(`mine [${functions.length}] mine\n`);
    await rm(other, { recursive: true });
  });
});

describe("a service", () => {
  it("gets the settings of what it needs and no others", async () => {
    const always = ["DRAIN_MS", "LOG_LEVEL", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_TRACES_SAMPLER_ARG"];
    expect(await envOf("sample-echo")).toEqual(always);
    expect(await envOf("sample-tick")).toEqual(["DATABASE_DRIVER", "DATABASE_POOL", "DATABASE_URL", "DATABASE_WAIT_MS", ...always]);
    expect(await envOf("sample-gateway")).toEqual(["CAPABILITY_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL", ...always].sort());
    expect(await envOf("sample-plugin")).toEqual(["LLM_GATEWAY_URL", "SCOPE_GATEWAY_URL"]);
  });

  it("gets the service token only when it checks or carries it", async () => {
    const holders = [];
    for (const { name } of functions) if ((await envOf(name)).includes("SERVICE_TOKEN")) holders.push(name);
    expect(holders).toEqual(["sample-register", "sample-run"]);
  });

  it("takes every secret from its own Secret, and none from the ConfigMap", async () => {
    for (const { name } of functions) {
      for (const { name: variable, valueFrom } of (await service(name)).spec.template.spec.containers[0].env) {
        const known = VARIABLE_NAMES.find((candidate) => candidate === variable);
        if (known && isSecret(known)) expect(valueFrom).toMatchObject({ secretKeyRef: { name: variable.toLowerCase().replaceAll("_", "-"), key: variable } });
        else expect(valueFrom?.secretKeyRef).toBeUndefined();
      }
    }
  });

  it("may be silent for as long as it may run", async () => {
    const { timeoutSeconds, responseStartTimeoutSeconds } = (await service("sample-run")).spec.template.spec;
    expect([timeoutSeconds, responseStartTimeoutSeconds]).toEqual([600, 600]);
    for (const { name } of functions) {
      const template = (await service(name)).spec.template.spec;
      expect(template.timeoutSeconds).toBeGreaterThanOrEqual(45);
      if (template.timeoutSeconds > 300) expect(template.responseStartTimeoutSeconds).toBe(template.timeoutSeconds);
    }
  });

  it("runs its own bundle at its own scale, inside the cluster", async () => {
    const { metadata, spec } = await service("sample-list");
    expect(spec.template.spec.containers[0].args).toEqual(["/app/functions/sample-list/index.mjs"]);
    expect(spec.template.metadata.annotations).toEqual({ "autoscaling.knative.dev/min-scale": "1", "autoscaling.knative.dev/max-scale": "10" });
    expect(spec.template.spec.containerConcurrency).toBe(80);
    expect(metadata.labels["networking.knative.dev/visibility"]).toBe("cluster-local");
  });
});

async function publicRules(): Promise<Rule[]> {
  const all = await documents(await yamlFiles(join(root, "knative/routes")));
  return all.flatMap(({ value }) => (v.is(PublicRoute, value) ? value.spec.rules : []));
}

type PathType = Rule["matches"][number]["path"]["type"];

/** Gateway API lets an implementation choose where regular expressions rank; `order` is its choice. */
function resolve(rules: Rule[], method: string, path: string, order: PathType[]): string | undefined {
  const fits = ({ type, value }: Rule["matches"][number]["path"]) =>
    type === "Exact" ? path === value : type === "PathPrefix" ? path === value || path.startsWith(value.replace(/\/?$/, "/")) : new RegExp(`^(?:${value})$`).test(path);
  const candidates = rules.flatMap((rule) =>
    rule.matches.filter((match) => (match.method === undefined || match.method === method) && fits(match.path)).map((match) => ({ rule, match })),
  );
  const isCatchAll = ({ match }: (typeof candidates)[number]) => Number(match.path.type === "PathPrefix" && match.path.value === "/");
  candidates.sort(
    (a, b) => isCatchAll(a) - isCatchAll(b) || order.indexOf(a.match.path.type) - order.indexOf(b.match.path.type) || b.match.path.value.length - a.match.path.value.length,
  );
  return candidates[0]?.rule.filters.find(({ urlRewrite }) => urlRewrite)?.urlRewrite?.hostname.split(".")[0];
}

describe("the public host", () => {
  const ORDERS: PathType[][] = [
    ["Exact", "RegularExpression", "PathPrefix"],
    ["Exact", "PathPrefix", "RegularExpression"],
  ];

  it.each(ORDERS)("leads each request to its function, whatever ranks first (%s, %s, %s)", async (...order) => {
    const rules = await publicRules();
    const to = (method: string, path: string) => resolve(rules, method, path, order);
    expect(to("GET", "/v1/samples")).toBe("sample-list");
    expect(to("POST", "/v1/samples")).toBe("sample-make");
    expect(to("GET", "/v1/samples/smp_1")).toBe("sample-detail");
    expect(to("GET", "/v1/samples/smp_1/files/a.txt")).toBe("sample-file");
    expect(to("POST", "/v1/echoes")).toBe("sample-echo");
  });

  it("leads everything else to the function that says so in our format", async () => {
    const rules = await publicRules();
    for (const order of ORDERS) {
      for (const [method, path] of [
        ["GET", "/"],
        ["DELETE", "/v1/samples"],
        ["GET", "/v1/echoes"],
        ["GET", "/v1/samples/a/b"],
        ["POST", "/internal/registry/samples"],
        ["POST", "/internal/llm/v1/messages"],
      ] as const) {
        expect(`${method} ${path} ${resolve(rules, method, path, order)}`).toBe(`${method} ${path} not-found`);
      }
    }
  });

  it("never names an internal function", async () => {
    const hosts = (await publicRules()).flatMap(({ filters }) => filters.flatMap(({ urlRewrite }) => (urlRewrite ? [urlRewrite.hostname.split(".")[0]] : [])));
    expect(hosts.sort()).toEqual(["not-found", "sample-detail", "sample-echo", "sample-file", "sample-list", "sample-make"]);
  });

  it("takes away what only the inside may say", async () => {
    for (const { filters } of await publicRules()) {
      const removed = filters.flatMap(({ requestHeaderModifier }) => requestHeaderModifier?.remove ?? []);
      expect(removed).toEqual(expect.arrayContaining(["x-tenant-id", "x-user-id", "ce-id", "knative-serving-tag", "aau-llm-token"]));
    }
  });

  it("waits as long as the function may take", async () => {
    const rules = await publicRules();
    const timeouts = rules.map(({ filters, timeouts }) => [filters.find(({ urlRewrite }) => urlRewrite)?.urlRewrite?.hostname.split(".")[0], timeouts.request]);
    expect(Object.fromEntries(timeouts)).toMatchObject({ "sample-make": "60s", "sample-list": "60s" });
  });

  const declared = (name: string, route: Route): LoadedFunction => ({
    name,
    kind: "http",
    file: name,
    fn: http({
      name,
      summary: name,
      route,
      scope: "public",
      needs: [],
      replies: { 204: null },
      scale: { min: 0, max: 1, concurrency: 1 },
      handle: async () => noContent(),
    }),
  });

  it("uses a prefix where nothing competes, and never two rules that do", () => {
    const files = routeFiles([declared("thing-end", "DELETE /v1/things/{id}"), declared("thing-list", "GET /v1/things")]);
    expect(files["things.yaml"]).toContain("type: PathPrefix");
    expect(files["things.yaml"]).not.toContain("RegularExpression");
    const deeper = routeFiles([declared("thing-end", "DELETE /v1/things/{id}"), declared("part-end", "DELETE /v1/things/{id}/parts/{part}")]);
    expect(deeper["things.yaml"]).not.toContain("PathPrefix");
  });

  it("splits a resource that has more rules than a route may hold", () => {
    const many = Array.from({ length: 20 }, (_, index) => declared(`thing-${index}`, `GET /v1/things/part-${index}`));
    const routes = parseAllDocuments(routeFiles(many)["things.yaml"] ?? "").map((document) => v.parse(PublicRoute, document.toJS()));
    expect(routes.map(({ metadata, spec }) => [metadata.name, spec.rules.length])).toEqual([
      ["things", 16],
      ["things-2", 4],
    ]);
  });

  it("refuses a public function under /internal", () => {
    expect(() => routeFiles([declared("leak", "GET /internal/secrets")])).toThrow(/leak is public and lies under \/internal/);
  });
});

describe("schedules", () => {
  it("keep their seconds for PingSource", async () => {
    expect(parse(await read("knative/sources/sample-tick.yaml"))).toMatchObject({ kind: "PingSource", spec: { schedule: "*/15 * * * * *", timezone: "UTC" } });
  });

  it("become minutes and the seconds within them for CronJob, which knows no seconds", () => {
    expect(splitSchedule("*/15 * * * * *")).toEqual({ minutes: "* * * * *", seconds: [0, 15, 30, 45] });
    expect(splitSchedule("5 0 3 * * 1")).toEqual({ minutes: "0 3 * * 1", seconds: [5] });
  });

  it("reach their function from the job's own script", async () => {
    let heard = "";
    const server = createServer((request, response) => {
      heard = `${request.method} ${request.url}`;
      response.writeHead(204).end();
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    const port = typeof address === "object" && address ? address.port : 0;
    const Job = v.object({
      spec: v.object({
        jobTemplate: v.object({ spec: v.object({ template: v.object({ spec: v.object({ containers: v.tuple([v.object({ args: v.array(Text) })]) }) }) }) }),
      }),
    });
    const [{ args }] = v.parse(Job, parse(await read("knative/cron-jobs/sample-hourly.yaml"))).spec.jobTemplate.spec.template.spec.containers;
    const here = args.map((argument) => argument.replace("sample-hourly.aau.svc.cluster.local", `127.0.0.1:${port}`));
    const child = spawn(process.execPath, here, { timeout: 10_000 });
    const [code] = await once(child, "exit");
    server.close();
    expect([code, heard]).toEqual([0, "POST /"]);
  });
});

describe("every kustomization", () => {
  it("lists files and folders that are there, and all that lie beside it", async () => {
    const Kustomization = v.object({ kind: v.literal("Kustomization"), resources: v.array(Text) });
    const all = [...(await yamlFiles(join(root, "knative"))), ...(await yamlFiles(join(ROOT, "knative")))].filter((file) => file.endsWith("/kustomization.yaml"));
    expect(all.length).toBeGreaterThan(5);
    for (const { file, value } of await documents(all)) {
      const { resources } = v.parse(Kustomization, value);
      const folder = dirname(file);
      for (const resource of resources) expect(`${file}: ${resource} ${existsSync(join(folder, resource))}`).toBe(`${file}: ${resource} true`);
      const beside = (await readdir(folder)).filter((name) => name.endsWith(".yaml") && name !== "kustomization.yaml" && name !== "secrets.example.yaml");
      expect(resources.filter((name) => name.endsWith(".yaml")).sort()).toEqual(beside.sort());
    }
  });
});

if (!hasSchemas) console.warn("Manifests are not held against the cluster's own schemas: ../shared/crds is not there.");
describe.skipIf(!hasSchemas)("the cluster's own schemas", () => {
  const Resource = v.object({ apiVersion: Text, kind: Text, metadata: v.object({ name: Text }) });

  it("accept every manifest, in every release at hand", async () => {
    const schemaOf = readSchemas();
    const files = [...(await yamlFiles(join(root, "knative"))), ...(await yamlFiles(join(ROOT, "knative/base")))].filter((file) => !file.endsWith("/kustomization.yaml"));
    const checked = new Set<string>();
    for (const { file, value } of await documents(files)) {
      const { apiVersion, kind, metadata } = v.parse(Resource, value);
      const validators = schemaOf(`${apiVersion} ${kind}`);
      if (validators.length === 0) throw new Error(`There is no schema for ${apiVersion} ${kind} (${file})`);
      for (const validate of validators) {
        validate(value);
        expect({ name: `${kind} ${metadata.name}`, errors: validate.errors ?? [] }).toEqual({ name: `${kind} ${metadata.name}`, errors: [] });
      }
      checked.add(kind);
    }
    expect([...checked]).toEqual(
      expect.arrayContaining([
        "Service",
        "HTTPRoute",
        "Gateway",
        "ReferenceGrant",
        "PingSource",
        "CronJob",
        "Deployment",
        "Job",
        "NetworkPolicy",
        "ConfigMap",
        "Secret",
        "Namespace",
      ]),
    );
  });

  it("refuse a field that does not exist", async () => {
    const value: unknown = parse(await read("knative/services/sample-list.yaml"));
    const text = JSON.stringify(value).replace('"containerConcurrency"', '"containerConcurency"');
    const [validate] = readSchemas()("serving.knative.dev/v1 Service");
    expect(validate?.(JSON.parse(text))).toBe(false);
  });
});
