import { createParser } from "eventsource-parser";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { filer, waiter, walker } from "../batteries/plugins.ts";
import { expectRefusal } from "../batteries/refusal.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";

let platform: TestPlatform;
beforeAll(async () => {
  platform = await startTestPlatform({ plugins: [walker, waiter, filer] });
});
afterAll(() => platform?.stop());

interface Seen {
  id: number;
  type: string;
  data: Record<string, unknown>;
}

/** Reads a task's stream to its end, or until `isEnough`. */
async function follow(tenant: TestTenant, taskId: string, after?: number, isEnough: (seen: Seen[]) => boolean = () => false): Promise<{ seen: Seen[]; ended: boolean }> {
  const answer = await fetch(`${platform.publicUrl}/v1/tasks/${taskId}/events`, {
    headers: { authorization: `Bearer ${tenant.key}`, ...(after === undefined ? {} : { "last-event-id": String(after) }) },
  });
  expect(answer.status).toBe(200);
  expect(answer.headers.get("content-type")).toBe("text/event-stream; charset=utf-8");
  const seen: Seen[] = [];
  const parser = createParser({ onEvent: ({ id, event, data }) => seen.push({ id: Number(id), type: event ?? "", data: JSON.parse(data) }) });
  const decoder = new TextDecoder();
  for await (const chunk of answer.body ?? []) {
    parser.feed(decoder.decode(chunk, { stream: true }));
    // Leaving the loop cancels the body, which hangs up.
    if (isEnough(seen)) return { seen, ended: false };
  }
  return { seen, ended: true };
}

const start = async (tenant: TestTenant, plugin: string) => (await tenant.api("POST", "/v1/tasks", { command: "go", plugin })).body.task_id;
const ROOMS = ["one", "two", "three", "four", "five", "six"];

describe("task-events", () => {
  it("tells of every node in order, and ends after the task", async () => {
    const tenant = await platform.tenant();
    const { seen, ended } = await follow(tenant, await start(tenant, "walker"));
    expect(ended).toBe(true);
    expect(seen.map(({ id }) => id)).toEqual(seen.map((_, at) => at + 1));
    expect(seen.map(({ type, data }) => [type, data.node ?? data.status ?? data.plugin])).toEqual([
      ["started", "walker"],
      ...ROOMS.flatMap((node) => [
        ["node_started", node],
        ["report", node],
        ["node_finished", node],
      ]),
      ["finished", "success"],
    ]);
    for (const { data } of seen) expect(new Date(String(data.at)).toISOString()).toBe(data.at);
  });

  it("resumes after any event without a gap and without saying one twice", async () => {
    const tenant = await platform.tenant();
    const id = await start(tenant, "walker");
    const { seen: all } = await follow(tenant, id);
    for (let after = 0; after <= all.length; after++) {
      const { seen, ended } = await follow(tenant, id, after);
      expect(ended).toBe(true);
      expect(seen).toEqual(all.slice(after));
    }
    expect((await follow(tenant, id, 999_999_999)).seen).toEqual([]);
  });

  it("loses nothing when the client hangs up after every event of a living task", async () => {
    const tenant = await platform.tenant();
    const id = await start(tenant, "walker");
    const pieces: Seen[] = [];
    for (let ended = false; !ended; ) {
      const piece = await follow(tenant, id, pieces.at(-1)?.id ?? 0, (seen) => seen.length >= 1);
      pieces.push(...piece.seen);
      ended = piece.ended || pieces.at(-1)?.type === "finished";
    }
    expect(pieces).toEqual((await follow(tenant, id)).seen);
  });

  it("says what happens while it happens, to everyone who listens", async () => {
    const tenant = await platform.tenant();
    const id = await start(tenant, "waiter");
    const isAtWork = (seen: Seen[]) => seen.some(({ type }) => type === "report");
    const both = await Promise.all([follow(tenant, id, undefined, isAtWork), follow(tenant, id, undefined, isAtWork)]);
    for (const { seen } of both) expect(seen.map(({ type }) => type)).toEqual(["started", "node_started", "report"]);
    const rest = follow(tenant, id, 3);
    expect((await tenant.api("DELETE", `/v1/tasks/${id}`)).body.status).toBe("cancelling");
    const { seen, ended } = await rest;
    expect([seen.at(-1)?.type, seen.at(-1)?.data.status, ended]).toEqual(["finished", "cancelled", true]);
  });

  it("refuses a Last-Event-ID that is none", async () => {
    const tenant = await platform.tenant();
    const id = await start(tenant, "filer");
    for (const text of ["x", "-1", "1.5", "1e3", "0x1", "9999999999", " "]) {
      const answer = await tenant.api("GET", `/v1/tasks/${id}/events`, undefined, { "last-event-id": text });
      if (text.trim() !== "") expectRefusal(answer, "INVALID_INPUT", text);
    }
  });
});

describe("artifact-download", () => {
  it("leads to a link that gives the very bytes, as a download", async () => {
    const tenant = await platform.tenant();
    const command = "line one\nline two ü \u{1f600}";
    const { body: task } = await tenant.api("POST", "/v1/tasks", { command, plugin: "filer" }, { prefer: "wait=20" });
    const [artifact] = task.artifacts;
    expect(artifact).toMatchObject({ name: "report.txt", media_type: "text/plain", size_bytes: Buffer.byteLength(command), url: `/v1/tasks/${task.task_id}/artifacts/report.txt` });
    const link = await tenant.api("GET", artifact.url);
    expect(link.status).toBe(302);
    const location = link.headers.get("location") ?? "";
    expect(new URL(location).searchParams.get("X-Amz-Expires")).toBe("300");
    const file = await fetch(location);
    expect([file.status, await file.text()]).toEqual([200, command]);
    // What the store should say is part of what is signed; the store of the tests keeps it to itself.
    expect(new URL(location).searchParams.get("response-content-disposition")).toBe('attachment; filename="report.txt"');
  });

  it("gives no link to what is not there, nor to another tenant", async () => {
    const [tenant, stranger] = [await platform.tenant(), await platform.tenant()];
    const { body: task } = await tenant.api("POST", "/v1/tasks", { command: "secret", plugin: "filer" }, { prefer: "wait=20" });
    const path = `/v1/tasks/${task.task_id}/artifacts`;
    const foreign = expectRefusal(await stranger.api("GET", `${path}/report.txt`), "NOT_FOUND");
    expect(expectRefusal(await stranger.api("GET", `${path}/nothing.txt`), "NOT_FOUND")).toEqual(foreign);
    for (const name of ["nothing.txt", "REPORT.TXT", "report.txt.bak", "..%2freport.txt", "%2e%2e%2freport.txt", ".report.txt", "report.txt%00", "a%0d%0ab", "x".repeat(201)])
      expectRefusal(await tenant.api("GET", `${path}/${name}`), "NOT_FOUND", name);
  });
});
