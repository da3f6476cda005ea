/**
 * A plugin that does wrong in the way that EVIL names. It is raw HTTP without the SDK, which would not let it, and plain JavaScript, so that
 * it is up again in a moment after it has died.
 */
import { createServer } from "node:http";
import { gzipSync } from "node:zlib";

const ENVELOPE = (task) => ({
  envelope_version: "2.0",
  task_id: task,
  status: "success",
  result: { text: "fine", data: null, confidence: 1, next_steps: [] },
  error: null,
  artifacts: [],
  warnings: [],
  usage: { tokens: 0, duration_ms: 1, nodes_run: 1, model: null, budget_exceeded: false },
});
const MIB = 1024 * 1024;

/** Writes as fast as the other end reads, until it has had enough. */
async function pour(response, chunk, times) {
  for (let i = 0; i < times && !response.destroyed; i++) {
    if (!response.write(chunk)) {
      await new Promise((resolve) => {
        response.once("drain", resolve);
        response.once("close", resolve);
      });
    }
  }
  response.end();
}

const say = (response, envelope) => response.end(`${JSON.stringify({ type: "output", envelope })}\n`);
const sayText = (response, task, find, put) => response.end(`${JSON.stringify({ type: "output", envelope: ENVELOPE(task) }).replace(find, put)}\n`);

const WAYS = {
  crash() {
    setImmediate(() => {
      throw new Error("crash");
    });
  },
  "silent-exit": () => process.exit(0),
  "out-of-memory"() {
    const hoard = [];
    for (;;) hoard.push(new Array(100_000).fill(hoard.length));
  },
  hang: (response) => response.flushHeaders(),
  "busy-loop"() {
    for (;;) Math.random();
  },
  "huge-output": (response) => pour(response, Buffer.alloc(MIB, "x"), 1024),
  "million-lines"(response) {
    const lines = `${JSON.stringify({ type: "report", node: "flood", message: "again" })}\n`.repeat(1000);
    for (let i = 0; i < 1_000_000; i += 1000) process.stdout.write("a line of the log that says nothing\n".repeat(1000));
    return pour(response, lines, 1000);
  },
  "invalid-envelope": (response) => say(response, { hello: "world" }),
  "wrong-task": (response) => say(response, ENVELOPE("task_00000000000000000000000000")),
  /** Claims the work of the task that the command names. */
  "other-tenant": (response, _, { description }) => say(response, ENVELOPE(/task_\w+/.exec(description)?.[0] ?? "")),
  "not-a-number": (response, task) => sayText(response, task, '"confidence":1', '"confidence":NaN'),
  infinity: (response, task) => sayText(response, task, '"confidence":1', '"confidence":1e999'),
  "unknown-status": (response, task) => say(response, { ...ENVELOPE(task), status: "splendid" }),
  "proto-keys": (response, task) => sayText(response, task, '"data":null', '"data":{"a":{"__proto__":{"admin":true}}}'),
  "deep-json": (response, task) => sayText(response, task, '"data":null', `"data":{"a":${"[".repeat(100_000)}${"]".repeat(100_000)}}`),
  nul: (response, task) => sayText(response, task, "fine", "fi\\u0000ne"),
  "lone-surrogate": (response, task) => sayText(response, task, "fine", "fi\\ud800ne"),
  /** A gibibyte of zeros in many members, each a kilobyte. */
  "gzip-bomb"(response) {
    const member = gzipSync(Buffer.alloc(16 * MIB));
    response.setHeader("content-encoding", "gzip");
    return pour(response, member, 64);
  },
  redirect(response) {
    response.writeHead(307, { location: "http://127.0.0.1:1/" }).end();
  },
};

const way = WAYS[process.env.EVIL ?? ""];
if (!way) throw new Error(`EVIL must be one of ${Object.keys(WAYS).join(", ")}`);

createServer(async (request, response) => {
  response.on("error", () => {});
  // It is routable only after it has said that it is well: that is not the wrong that it does.
  if (request.url === "/health") return response.end('{"status":"healthy","components":{}}');
  if (request.url !== "/execute") return response.end("ok");
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const { task } = JSON.parse(Buffer.concat(chunks).toString());
  response.setHeader("content-type", "application/x-ndjson");
  await way(response, task.id, task);
}).listen(Number(process.env.PORT), "127.0.0.1");
