/** Holds what `npm run calibrate` wrote against commands that the fit never saw, with catalogues of every size. */
import { describe, expect, it } from "vitest";
import { outcomeOf } from "../../scripts/calibrate-report.ts";
import { embedCatalogue, subsetsOf, trialsOf } from "../../scripts/calibrate-trials.ts";
import { offlineEmbedder } from "../../shared/models/embeddings-offline/offline-embedder.ts";
import { decide, thresholdsFor } from "../../shared/routing/decide.ts";
import { withoutQuotes } from "../../shared/routing/without-quotes.ts";
import { readCatalogue, readCommands, splitInHalves } from "../corpus/corpus.ts";

const embedder = offlineEmbedder();
const thresholds = thresholdsFor(embedder.model);
const catalogue = await readCatalogue();
const names = catalogue.map(({ plugin }) => plugin);
const embedded = await embedCatalogue(embedder, catalogue);
const commands = await readCommands();
const { fit, test } = splitInHalves(commands);
const vectors = await embedder.embed(test.map(({ text }) => withoutQuotes(text)));

describe("the corpus", () => {
  it("has at least 200 commands for the six plugins and 60 that fit none, all different", () => {
    expect(names).toEqual(["code-review", "customer-support", "qa-transformer", "ticket-processor", "doc-generator", "data-analyst"]);
    expect(commands.filter(({ plugin }) => plugin !== null).length).toBeGreaterThanOrEqual(200);
    expect(commands.filter(({ plugin }) => plugin === null).length).toBeGreaterThanOrEqual(60);
    expect(new Set(commands.map(({ text }) => text.toLowerCase())).size).toBe(commands.length);
    expect(new Set(commands.map(({ plugin }) => plugin))).toEqual(new Set([...names, null]));
  });

  it("is split in two halves with the same share of each label, always the same way", () => {
    const again = splitInHalves([...commands].reverse());
    expect(new Set(again.fit.map(({ text }) => text))).toEqual(new Set(fit.map(({ text }) => text)));
    for (const plugin of [...names, null]) {
      const [one, other] = [fit, test].map((half) => half.filter((command) => command.plugin === plugin).length);
      expect(Math.abs((one ?? 0) - (other ?? 0))).toBeLessThanOrEqual(1);
    }
  });

  it("shares no sentence with the catalogue", () => {
    const capabilities = catalogue.flatMap((entry) => entry.capabilities.map((text) => text.toLowerCase()));
    for (const { text } of commands.filter((command) => command.text.split(" ").length > 3)) {
      expect(capabilities.some((capability) => capability.includes(text.toLowerCase()))).toBe(false);
    }
  });
});

describe("the fitted thresholds on the test half", () => {
  it("find the right plugin among six, and are seldom wrong when they are sure", () => {
    const outcome = outcomeOf(trialsOf(test, vectors, embedded), thresholds);
    const direct = outcome.ownDirectRight + outcome.ownDirectWrong + outcome.foreignDirect;
    expect(outcome.top1 / outcome.own).toBeGreaterThan(0.85);
    expect(outcome.ownDirectRight / direct).toBeGreaterThan(0.93);
    expect(outcome.ownDirectRight / outcome.own).toBeGreaterThan(0.55);
    expect((outcome.ownDirectWrong + outcome.foreignDirect) / test.length).toBeLessThan(0.035);
    expect((outcome.ownUnsure + outcome.foreignUnsure) / test.length).toBeLessThan(0.33);
    expect(outcome.ownRefused / outcome.own).toBeLessThan(0.05);
    expect(outcome.foreignRefused / outcome.foreign).toBeGreaterThan(0.7);
  });

  it.each([1, 2, 3, 5])("refuse most commands of removed plugins, and route few commands wrong, with %i plugins left", (size) => {
    const outcomes = subsetsOf(names)
      .filter((part) => part.length === size)
      .map((part) => outcomeOf(trialsOf(test, vectors, embedded, part), thresholds));
    const sum = (pick: (outcome: (typeof outcomes)[number]) => number) => outcomes.reduce((total, outcome) => total + pick(outcome), 0);
    expect(sum((o) => o.foreignRefused) / sum((o) => o.foreign)).toBeGreaterThan(0.6);
    // Fitted for 2 % on commands that were judged by weights which had not seen them.
    expect(sum((o) => o.foreignDirect + o.ownDirectWrong) / sum((o) => o.own + o.foreign)).toBeLessThan(0.035);
    expect(sum((o) => o.ownRefused) / sum((o) => o.own)).toBeLessThan(0.06);
  });

  it("keep their promise in a crowd of fifty plugins", async () => {
    const crowd = await embedCatalogue(embedder, [...catalogue, ...(await readCatalogue("crowd.json"))]);
    const outcome = outcomeOf(
      trialsOf(test, vectors, crowd).filter(({ wanted }) => wanted !== null),
      thresholds,
    );
    expect(crowd.plugins).toHaveLength(50);
    expect(outcome.top1 / outcome.own).toBeGreaterThan(0.75);
    expect(outcome.ownDirectWrong / outcome.own).toBeLessThan(0.04);
  });

  it.each([{ part: ["code-review"] }, { part: names }])("route clear code-review commands and refuse the weather, with the catalogue $part", async ({ part }) => {
    const texts = ["Review this change for security problems", "Please review the attached diff", "Review this pull request", "What is the weather in Paris?", "order a pizza", ""];
    const trials = trialsOf(
      texts.map((text) => ({ plugin: null, text })),
      await embedder.embed(texts),
      embedded,
      part,
    );
    const decisions = trials.map(({ scores }) => decide(scores, thresholds));
    for (const decision of decisions.slice(0, 3)) expect(decision).toMatchObject({ kind: "direct", plugin: "code-review" });
    for (const decision of decisions.slice(3)) expect(decision.kind).toBe("none");
  });

  it("answer the same for the same command every time", async () => {
    const once = trialsOf(test, vectors, embedded).map(({ scores }) => decide(scores, thresholds));
    const again = trialsOf(test, await offlineEmbedder().embed(test.map(({ text }) => withoutQuotes(text))), embedded).map(({ scores }) => decide(scores, thresholds));
    expect(again).toEqual(once);
  });
});
