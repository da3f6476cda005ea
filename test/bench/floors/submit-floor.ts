/**
 * What a submit costs at least: node:http without a framework, one Lua call for key, rate and quota, one prepared INSERT, one
 * XADD. No validation beyond JSON.parse, no log, no tenant isolation, no idempotency. The bench's yardstick, not a product.
 */
import { createHash, randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { Redis } from "ioredis";
import pg from "pg";

const ADMIT = `
local auth = redis.call('GET', KEYS[1])
if not auth then return {0} end
local caller = cjson.decode(auth)
local rate = redis.call('INCR', 'floor:rate:' .. caller.t)
if rate == 1 then redis.call('PEXPIRE', 'floor:rate:' .. caller.t, 60000) end
if rate > caller.l then return {1} end
if redis.call('INCR', 'floor:quota:' .. caller.t) > caller.q then return {2} end
return {3, caller.t}
`;
const INSERT = { name: "insert-task", text: "INSERT INTO floor_tasks (id, tenant_id, plugin, input, status) VALUES ($1, $2, $3, $4, 'queued')" };

const redis = new Redis(process.env.REDIS_URL ?? "", { enableAutoPipelining: true });
redis.defineCommand("floorAdmit", { numberOfKeys: 1, lua: ADMIT });
const admit: (key: string) => Promise<[number, string]> = Reflect.get(redis, "floorAdmit").bind(redis);
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: Number(process.env.DATABASE_POOL) });

async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk);
  const key = request.headers.authorization?.slice(7) ?? "";
  const body = JSON.parse(Buffer.concat(chunks).toString());
  const [verdict, tenant] = await admit(`floor:auth:${createHash("sha256").update(key).digest("hex")}`);
  if (verdict !== 3) {
    response.writeHead(verdict === 0 ? 401 : 429).end();
    return;
  }
  const id = randomUUID();
  await pool.query({ ...INSERT, values: [id, tenant, body.plugin, JSON.stringify({ command: body.command })] });
  await redis.xadd("floor:tasks", "*", "task_id", id);
  const text = JSON.stringify({ task_id: id, status: "queued" });
  response.writeHead(202, { "content-type": "application/json", "content-length": Buffer.byteLength(text) }).end(text);
}

createServer((request, response) => {
  if (request.url === "/ready") response.end("ok");
  else answer(request, response).catch(() => response.writeHead(500).end());
}).listen(Number(process.env.PORT), "127.0.0.1");
process.on("SIGTERM", () => process.exit(0));
