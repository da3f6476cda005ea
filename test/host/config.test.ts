import { describe, expect, it } from "vitest";
import { ConfigError, readConfig, required, VARIABLES } from "../../shared/host/config.ts";
import { functionUrl } from "../../shared/host/function-url.ts";

describe("readConfig", () => {
  it("needs nothing, and freezes what it gives", () => {
    const config = readConfig({});
    expect(config).toMatchObject({ PORT: 8080, LOG_LEVEL: "info", DATABASE_DRIVER: "pg", S3_BUCKET: "aau-artifacts" });
    expect(Object.isFrozen(config)).toBe(true);
    expect(Object.keys(config).sort()).toEqual(Object.keys(VARIABLES).sort());
  });

  it("names every variable that is wrong at once, and repeats no value", () => {
    const env = { PORT: "eighty", LOG_LEVEL: "loud", CAPABILITY_KEY: "hunter2", DATABASE_URL: "not-a-url-with-a-password", TASK_LEASE_MS: "1", CHAIN_THRESHOLD: "2" };
    const reading = () => readConfig(env);
    expect(reading).toThrow(ConfigError);
    for (const name of Object.keys(env)) expect(reading).toThrow(name);
    for (const secret of ["hunter2", "not-a-url-with-a-password"]) expect(reading).not.toThrow(secret);
  });

  it("takes an empty variable for one that is not set", () => {
    expect(readConfig({ ANTHROPIC_API_KEY: " ", REDIS_URL: "", S3_ENDPOINT: "" })).toMatchObject({ ANTHROPIC_API_KEY: undefined, REDIS_URL: undefined, S3_ENDPOINT: undefined });
  });

  it("says which variable is missing when one is needed", () => {
    expect(() => required(readConfig({}), "REDIS_URL")).toThrow(/^REDIS_URL is not set\. /);
  });
});

it("functionUrl prefers an address of the function's own", () => {
  const config = { FUNCTION_URL: "http://{name}.aau.svc", FUNCTION_URLS: "wake=http://127.0.0.1:1/functions/wake, task-execute = http://127.0.0.1:2" };
  expect(["wake", "task-execute", "docs"].map((name) => functionUrl(config, name))).toEqual(["http://127.0.0.1:1/functions/wake", "http://127.0.0.1:2", "http://docs.aau.svc"]);
});
