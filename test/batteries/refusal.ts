/** The one shape of a refusal, checked to the last member. */
import { expect } from "vitest";
import { ERRORS, type ErrorCode } from "../../shared/errors.ts";
import type { ApiAnswer } from "../support/platform.ts";

/** Holds an answer to a code; gives the body without its request id, for comparisons. */
export function expectRefusal(answer: ApiAnswer, code: ErrorCode, note = ""): Record<string, unknown> {
  const where = `${note} ${answer.status} ${answer.text.slice(0, 300)}`;
  expect(answer.body?.error?.code, where).toBe(code);
  expect(answer.status, where).toBe(ERRORS[code].status);
  expect(Object.keys(answer.body), where).toEqual(["error"]);
  const { request_id, ...rest } = answer.body.error;
  expect(answer.headers.get("x-request-id"), where).toBe(request_id);
  expect(request_id, where).toMatch(/^req_[0-9a-z]{26}$/);
  expect(rest, where).toMatchObject({ code, retryable: ERRORS[code].retryable, message: expect.stringMatching(/^\S.{5,}/su) });
  expect(answer.headers.get("content-type"), where).toBe("application/json; charset=utf-8");
  expect(answer.headers.get("cache-control"), where).toBe("no-store");
  return rest;
}

/** Every answer to a known key tells how much is left. */
export function expectRateHeaders(answer: ApiAnswer, note = ""): void {
  const seen = ["limit", "remaining", "reset"].map((name) => Number(answer.headers.get(`x-ratelimit-${name}`) ?? Number.NaN));
  const [limit = Number.NaN, remaining = Number.NaN, reset = Number.NaN] = seen;
  expect(seen.every(Number.isSafeInteger), `${note}: ${seen}`).toBe(true);
  expect(remaining).toBeLessThan(limit);
  expect(Math.abs(reset - Date.now() / 1000)).toBeLessThan(62);
}
