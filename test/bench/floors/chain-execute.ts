/** The floor's function: takes the event, runs a one-node LangGraph in this process, writes the row, and tells the result stream. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { Annotation, END, START, StateGraph } from "@langchain/langgraph";
import { Redis } from "ioredis";
import pg from "pg";

const State = Annotation.Root({ command: Annotation<string>(), text: Annotation<string>() });
const graph = new StateGraph(State)
  .addNode("answer", async (state: typeof State.State) => ({ text: state.command }))
  .addEdge(START, "answer")
  .addEdge("answer", END)
  .compile();

const redis = new Redis(process.env.REDIS_URL ?? "", { enableAutoPipelining: true });
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: Number(process.env.DATABASE_POOL) });
const CLAIM = { name: "claim", text: "UPDATE floor_tasks SET status = 'running' WHERE id = $1 AND status = 'queued' RETURNING input" };
const SETTLE = { name: "settle", text: "UPDATE floor_tasks SET status = 'success', result = $2 WHERE id = $1" };

async function run(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
  const chunks: Buffer[] = [];
  for await (const chunk of incoming) chunks.push(chunk);
  const { task_id: id } = JSON.parse(Buffer.concat(chunks).toString());
  const { rows } = await pool.query({ ...CLAIM, values: [id] });
  if (rows[0]) {
    const state = await graph.invoke({ command: rows[0].input.command });
    await pool.query({ ...SETTLE, values: [id, JSON.stringify({ result: state.text })] });
    await redis.xadd("floor:results", "MAXLEN", "~", 10_000, "*", "task_id", id);
  }
  response.writeHead(204).end();
}

createServer((request, response) => {
  if (request.url === "/ready") response.end("ok");
  else run(request, response).catch(() => response.writeHead(500).end());
}).listen(Number(process.env.PORT), "127.0.0.1");
process.on("SIGTERM", () => process.exit(0));
