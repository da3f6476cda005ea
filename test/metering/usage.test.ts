import { describe, expect, test } from "vitest";
import { estimateUsage, readUsage } from "../../shared/metering/usage.ts";

describe("reading usage", () => {
  test("tells cache writes apart by how long they are kept", () => {
    const usage = {
      input_tokens: 1,
      output_tokens: 2,
      cache_creation_input_tokens: 30,
      cache_read_input_tokens: 4,
      cache_creation: { ephemeral_5m_input_tokens: 10, ephemeral_1h_input_tokens: 20 },
      inference_geo: "us",
    };
    expect(readUsage(usage)).toMatchObject({ counts: { input: 1, output: 2, cacheWrite5m: 10, cacheWrite1h: 20, cacheRead: 4, inUs: true }, raw: usage });
  });

  test("takes classes that are not mentioned, or null, as none", () => {
    expect(readUsage({ input_tokens: 1, output_tokens: 2, cache_read_input_tokens: null })?.counts).toEqual({
      input: 1,
      output: 2,
      cacheWrite5m: 0,
      cacheWrite1h: 0,
      cacheRead: 0,
      inUs: false,
    });
  });

  test.each([
    undefined,
    null,
    {},
    { input_tokens: 1 },
    { input_tokens: -1, output_tokens: 1 },
    { input_tokens: 1.5, output_tokens: 1 },
    { input_tokens: 2 ** 31, output_tokens: 1 },
    { input_tokens: "7", output_tokens: 1 },
  ])("believes nothing in %o", (raw) => {
    expect(readUsage(raw)).toBeNull();
  });

  test("an estimate says that it is one, and what was reported", () => {
    expect(estimateUsage(401, 8, { output_tokens: -1 })).toMatchObject({ counts: { input: 101, output: 2 }, raw: { estimated: true, reported: { output_tokens: -1 } } });
  });
});
