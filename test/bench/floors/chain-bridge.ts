/** The floor's bridge: a consumer group, one CloudEvent a task, acknowledged when the function has answered. */
import { createServer } from "node:http";
import { Redis } from "ioredis";
import { Agent, request } from "undici";

const url = process.env.REDIS_URL ?? "";
const target = process.env.TARGET ?? "";
const blocking = new Redis(url);
const redis = new Redis(url, { enableAutoPipelining: true });
const agent = new Agent({ connections: null, pipelining: 1 });
const MAX_IN_FLIGHT = 256;
let open = 0;
let freed = () => {};

async function deliver(id: string, task: string): Promise<void> {
  const answer = await request(target, {
    method: "POST",
    dispatcher: agent,
    headers: { "ce-specversion": "1.0", "ce-id": id, "ce-source": "/floor", "ce-type": "floor.task.queued", "content-type": "application/json" },
    body: JSON.stringify({ task_id: task }),
  });
  await answer.body.dump();
  if (answer.statusCode === 204) await Promise.all([redis.xack("floor:tasks", "floor", id), redis.xdel("floor:tasks", id)]);
}

async function read(): Promise<void> {
  await redis.xgroup("CREATE", "floor:tasks", "floor", "0", "MKSTREAM").catch(() => {});
  for (;;) {
    if (open >= MAX_IN_FLIGHT) {
      await new Promise<void>((resolve) => {
        freed = resolve;
      });
    }
    const answer = await blocking.xreadgroup("GROUP", "floor", "one", "COUNT", MAX_IN_FLIGHT - open, "BLOCK", 1_000, "STREAMS", "floor:tasks", ">");
    const [first] = answer ?? [];
    for (const [id, fields] of first?.[1] ?? []) {
      open += 1;
      deliver(id, fields?.[1] ?? "")
        .catch(() => {})
        .finally(() => {
          open -= 1;
          freed();
        });
    }
  }
}

createServer((_, response) => response.end("ok")).listen(Number(process.env.PORT), "127.0.0.1");
process.on("SIGTERM", () => process.exit(0));
await read();
