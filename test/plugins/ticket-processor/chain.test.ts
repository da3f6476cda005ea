/** SPEC 14.2's own example, end to end without a model: review a change, and create a ticket for each issue. */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import codeReview from "../../../functions/plugins/code-review/code-review.ts";
import ticketProcessor from "../../../functions/plugins/ticket-processor/ticket-processor.ts";
import { embedCatalogue, trialsOf } from "../../../scripts/calibrate-trials.ts";
import { offlineEmbedder } from "../../../shared/models/embeddings-offline/offline-embedder.ts";
import { decide, thresholdsFor } from "../../../shared/routing/decide.ts";
import { readCommands } from "../../corpus/corpus.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../../support/platform.ts";

const diff = readFileSync(new URL("../../../functions/plugins/code-review/examples/change.diff", import.meta.url), "utf8");
const COMMAND = "Review this change and create a ticket for each issue";

let platform: TestPlatform;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [codeReview, ticketProcessor] });
});
afterAll(() => platform?.stop());

async function run(tenant: TestTenant, command: string) {
  const body = { command, attachments: [{ name: "change.diff", media_type: "text/x-diff", content: diff }] };
  const { body: task, status } = await tenant.api("POST", "/v1/tasks", body, { prefer: "wait=25" });
  expect(status, JSON.stringify(task)).toBe(200);
  return task;
}

describe("a review with a ticket for each issue", () => {
  it("is planned from one sentence, and each finding gets one ticket, whose source is the review", async () => {
    const tenant = await platform.tenant();
    const task = await run(tenant, COMMAND);
    expect(task.steps).toMatchObject([
      { plugin: "code-review", status: "partial" },
      { plugin: "ticket-processor", status: "success" },
    ]);
    const [review, tickets] = task.steps.map(({ id }: { id: string }) => task.data.steps[id].data);
    expect(tickets.tickets).toHaveLength(review.comments.length);
    expect(tickets.tickets.map(({ reference }: { reference: string }) => reference).sort()).toEqual(
      review.comments.map(({ path, line }: { path: string; line: number }) => `${path}:${line}`).sort(),
    );
    expect(tickets.summary).toMatchObject({ created: review.comments.length, known: 0 });
    expect(task.warnings).toEqual([]);
  });

  it("makes no second ticket when it is asked for again", async () => {
    const tenant = await platform.tenant();
    const ticketsOf = (task: Awaited<ReturnType<typeof run>>) => task.data.steps[task.steps[1].id].data;
    const first = ticketsOf(await run(tenant, COMMAND));
    const second = ticketsOf(await run(tenant, COMMAND));
    expect(second.summary).toMatchObject({ created: 0, known: first.summary.created });
    expect(second.tickets.map(({ id }: { id: string }) => id)).toEqual(first.tickets.map(({ id }: { id: string }) => id));
  });
});

describe("routing between the two plugins", () => {
  const embedder = offlineEmbedder();
  const thresholds = thresholdsFor(embedder.model);
  const route = async (texts: readonly string[]) => {
    const catalogue = [codeReview, ticketProcessor].map(({ name, manifest }) => ({ plugin: name, capabilities: [...manifest.capabilities] }));
    const embedded = await embedCatalogue(embedder, catalogue);
    const trials = trialsOf(
      texts.map((text) => ({ plugin: null, text })),
      await embedder.embed(texts),
      embedded,
    );
    return trials.map(({ scores }, index) => ({ text: texts[index], decision: decide(scores, thresholds) }));
  };

  it("is sure of the ticket commands that the plugin itself suggests", async () => {
    const commands = [
      "create a ticket: the export hangs on Safari",
      "what is the status of T-12",
      "close T-12",
      "assign T-12 to anna",
      "list open tickets",
      "triage the open tickets",
    ];
    for (const { text, decision } of await route(commands)) expect(decision, text).toMatchObject({ kind: "direct", plugin: "ticket-processor" });
  });

  it("takes no command away from code-review", async () => {
    const commands = (await readCommands()).filter(({ plugin }) => plugin === "code-review").map(({ text }) => text);
    const decided = await route(commands);
    expect(decided.filter(({ decision }) => decision.kind === "direct" && decision.plugin !== "code-review")).toEqual([]);
    expect(decided.filter(({ decision }) => decision.kind === "direct").length).toBeGreaterThan(20);
  });
});
