/** The client, a process of its own: one request at a time on each connection, nothing parsed that need not be. */
import { Redis } from "ioredis";
import { Client, type Dispatcher } from "undici";
import * as v from "valibot";
import { LoadJob, type LoadReport } from "./load-job.ts";

interface Answer {
  status: number;
  text: string;
}

/** undici's lowest door: no streams, no promises of its own. */
function send(client: Client, method: "GET" | "POST", path: string, headers: Record<string, string>, body: string | undefined): Promise<Answer> {
  return new Promise((resolve, reject) => {
    let status = 0;
    const chunks: Buffer[] = [];
    const handler: Dispatcher.DispatchHandler = {
      onRequestStart() {},
      onResponseStart(_controller, statusCode) {
        status = statusCode;
      },
      onResponseData(_controller, chunk) {
        chunks.push(chunk);
      },
      onResponseEnd() {
        resolve({ status, text: chunks.length === 1 ? String(chunks[0]) : Buffer.concat(chunks).toString() });
      },
      onResponseError(_controller, error) {
        reject(error);
      },
    };
    client.dispatch({ method, path, headers, body: body ?? null }, handler);
  });
}

const taskIdOf = (text: string) => /"task_id":"([^"]+)"/.exec(text)?.[1] ?? "";
const isOver = (text: string) => /"status":"(?:success|partial|failed|cancelled)"/.test(text);

/** Tells of results as they come in on a stream. */
async function readResults(redisUrl: string, stream: string) {
  const redis = new Redis(redisUrl);
  // Fixed before the first request is sent: "$" would mean a later moment with every read that comes back empty.
  let from = (await redis.xrevrange(stream, "+", "-", "COUNT", 1))[0]?.[0] ?? "0";
  const seen = new Set<string>();
  const waiting = new Map<string, () => void>();
  let open = true;
  const reading = (async () => {
    while (open) {
      const answer = await redis.xread("COUNT", 500, "BLOCK", 200, "STREAMS", stream, from).catch(() => null);
      for (const [id, fields] of answer?.[0]?.[1] ?? []) {
        from = id;
        const task = fields[1] ?? "";
        const wake = waiting.get(task);
        if (wake) wake();
        else seen.add(task);
      }
    }
    redis.disconnect();
  })();
  return {
    until: (task: string) =>
      seen.delete(task)
        ? Promise.resolve()
        : new Promise<void>((resolve) => {
            waiting.set(task, () => {
              waiting.delete(task);
              resolve();
            });
          }),
    async close() {
      open = false;
      await reading;
    },
  };
}

export async function runJob(job: LoadJob): Promise<LoadReport> {
  const options = { pipelining: 1, keepAliveTimeout: 60_000, headersTimeout: 60_000, bodyTimeout: 60_000 };
  const clients = Array.from({ length: job.connections }, () => new Client(job.url, options));
  const { untilDone } = job;
  const pollers = untilDone?.by === "poll" ? clients.map(() => new Client(untilDone.url, options)) : [];
  const results = untilDone?.by === "stream" ? await readResults(untilDone.redisUrl, untilDone.stream) : null;
  const answered: number[] = [];
  const done: number[] = [];
  const bad: Record<string, number> = {};
  let good = 0;
  let next = 0;
  const cpuBefore = process.cpuUsage();
  const startedAt = performance.now();
  const until = job.durationMs === undefined ? Number.POSITIVE_INFINITY : startedAt + job.durationMs;
  const total = job.count ?? Number.POSITIVE_INFINITY;

  async function one(client: Client, poller: Client | undefined): Promise<string | null> {
    const request = job.requests[next++ % job.requests.length];
    if (!request) return "no request";
    const sentAt = performance.now();
    const answer = await send(client, job.method, request.path, request.headers, request.body);
    answered.push(performance.now() - sentAt);
    if (answer.status !== job.expect.status) return String(answer.status);
    if (job.expect.contains !== undefined && !answer.text.includes(job.expect.contains)) return `${answer.status} with another body`;
    if (!untilDone) return null;
    const task = taskIdOf(answer.text);
    if (results) await results.until(task);
    for (let text = ""; poller && !isOver(text); ) {
      const polled = await send(poller, "GET", `/v1/tasks/${task}?wait=25`, request.headers, undefined);
      if (polled.status !== 200) return `poll ${polled.status}`;
      text = polled.text;
    }
    done.push(performance.now() - sentAt);
    return null;
  }

  await Promise.all(
    clients.map(async (client, slot) => {
      while (next < total && performance.now() < until) {
        const trouble = await one(client, pollers[slot]).catch((error: unknown) => (error instanceof Error ? error.message : "error"));
        if (trouble === null) good += 1;
        else bad[trouble] = (bad[trouble] ?? 0) + 1;
      }
    }),
  );
  const seconds = (performance.now() - startedAt) / 1000;
  const cpu = process.cpuUsage(cpuBefore);
  await results?.close();
  for (const client of [...clients, ...pollers]) await client.destroy();
  const sorted = (values: number[]) => values.sort((a, b) => a - b);
  return { good, bad, seconds, answered: sorted(answered), done: sorted(done), clientCpu: (cpu.user + cpu.system) / 1e6 / seconds };
}

process.on("message", (message) => {
  runJob(v.parse(LoadJob, message)).then(
    (report) => process.send?.({ report }),
    (error: unknown) => process.send?.({ error: String(error) }),
  );
});
