import { inspect } from "node:util";
import type { Secret } from "./define-plugin.ts";

const MASK = "[secret]";

/** Keeps a tenant's secret out of logs, states and results: only `reveal()` gives the value. */
class MaskedSecret implements Secret {
  readonly #value: string;

  constructor(value: string) {
    this.#value = value;
  }

  reveal(): string {
    return this.#value;
  }

  toString(): typeof MASK {
    return MASK;
  }

  toJSON(): typeof MASK {
    return MASK;
  }

  [inspect.custom](): string {
    return MASK;
  }
}

export function maskSecret(value: string): Secret {
  return new MaskedSecret(value);
}

/** The JSON value with every text in it redacted, keys too. */
export function redactJson<T>(value: T, redact: (text: string) => string): T;
export function redactJson(value: unknown, redact: (text: string) => string): unknown {
  if (typeof value === "string") return redact(value);
  if (Array.isArray(value)) return value.map((member) => redactJson(member, redact));
  if (typeof value === "object" && value !== null) return Object.fromEntries(Object.entries(value).map(([key, member]) => [redact(key), redactJson(member, redact)]));
  return value;
}

/** Takes every known secret out of a text that leaves the plugin. Values under 6 characters would mask ordinary words. */
export function redactor(values: Iterable<string>): (text: string) => string {
  const forms = new Set<string>();
  for (const value of values) {
    if (value.length < 6) continue;
    for (const form of [value, encodeURIComponent(value), JSON.stringify(value).slice(1, -1), Buffer.from(value).toString("base64")]) forms.add(form);
  }
  const longestFirst = [...forms].sort((a, b) => b.length - a.length);
  return (text) => longestFirst.reduce((clean, form) => clean.replaceAll(form, MASK), text);
}
