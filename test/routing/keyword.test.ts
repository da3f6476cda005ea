import { describe, expect, it } from "vitest";
import { decideByKeyword } from "../../shared/routing/keyword.ts";
import { readCatalogue } from "../corpus/corpus.ts";

const plugins = (await readCatalogue()).map(({ plugin, capabilities }) => ({ plugin, texts: capabilities }));
const codeReview = plugins.filter(({ plugin }) => plugin === "code-review");

describe("decideByKeyword", () => {
  it("routes a command that shares several words with one plugin", () => {
    for (const catalogue of [plugins, codeReview]) {
      expect(decideByKeyword("Review this change for security problems", catalogue)).toMatchObject({
        kind: "direct",
        method: "keyword",
        plugin: "code-review",
      });
    }
  });

  it("matches words by their stem", () => {
    expect(decideByKeyword("assigning tickets to teams", plugins)).toMatchObject({ kind: "direct", plugin: "ticket-processor" });
  });

  it("never routes on a single shared word", () => {
    expect(decideByKeyword("security", plugins).kind).not.toBe("direct");
    expect(decideByKeyword("security", codeReview).kind).not.toBe("direct");
  });

  it("refuses what shares no word that matters, and names the closest", () => {
    for (const command of ["What is the weather in Paris?", "order me and the others something to eat", "", "🍕", "the of and to"]) {
      expect(decideByKeyword(command, codeReview)).toMatchObject({ kind: "none", method: "keyword", candidates: [{ plugin: "code-review" }] });
    }
    expect(decideByKeyword("anything", [])).toEqual({ kind: "none", method: "keyword", candidates: [] });
  });

  it("reads a bounded part of a huge command", () => {
    const huge = `Review this change for security problems ${"x ".repeat(1_000_000)}`;
    expect(decideByKeyword(huge, plugins)).toMatchObject({ method: "keyword" });
  });

  it("does not depend on the order of registration", () => {
    const command = "write a report on test coverage and sales";
    expect(decideByKeyword(command, [...plugins].reverse())).toEqual(decideByKeyword(command, plugins));
  });
});
