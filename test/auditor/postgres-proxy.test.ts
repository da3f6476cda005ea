import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { type LostReply, type PostgresProxy, startPostgresProxy } from "../faults/postgres-proxy.ts";
import { freshDatabase } from "../support/postgres.ts";

let direct: pg.Client;
let proxy: PostgresProxy;
let lossyUrl: string;
beforeAll(async () => {
  const url = await freshDatabase(inject("postgresUrl"));
  direct = new pg.Client({ connectionString: url });
  await direct.connect();
  await direct.query("CREATE TABLE marks (name text)");
  await direct.query("CREATE FUNCTION mark(p text) RETURNS void LANGUAGE sql AS $$ INSERT INTO marks VALUES (p) $$");
  const through = new URL(url);
  proxy = await startPostgresProxy({ host: through.hostname, port: Number(through.port) });
  through.port = String(proxy.port);
  lossyUrl = through.href;
});
afterAll(async () => {
  await direct?.end();
  await proxy?.close();
});

async function markThroughProxy(name: string, variant: LostReply | null = null): Promise<void> {
  const client = new pg.Client({ connectionString: lossyUrl, query_timeout: 10_000 });
  client.on("error", () => {});
  await client.connect();
  try {
    await client.query("SELECT 1");
    // Prepared once and bound twice, as the platform's connections do.
    await client.query({ name: "mark", text: "SELECT mark($1)", values: [`${name}, first`] });
    if (variant) void proxy.loseNext("mark(", variant);
    await client.query({ name: "mark", text: "SELECT mark($1)", values: [name] });
  } finally {
    await client.end().catch(() => {});
  }
}
const marks = async (name: string) => (await direct.query("SELECT 1 FROM marks WHERE name = $1", [name])).rowCount;

describe("the PostgreSQL proxy", () => {
  it("passes everything on when it is not told to lose anything", async () => {
    await markThroughProxy("passed on");
    expect(await marks("passed on")).toBe(1);
  });

  it("loses the answer to a statement that was committed", async () => {
    await expect(markThroughProxy("committed", "committed")).rejects.toThrow();
    expect(await marks("committed")).toBe(1);
  });

  it("loses a statement before the server has it, which looks the same to the client", async () => {
    await expect(markThroughProxy("lost", "lost")).rejects.toThrow();
    expect(await marks("lost")).toBe(0);
    await markThroughProxy("after");
    expect(await marks("after")).toBe(1);
  });

  it("loses the answer of the next one when who sent the statement was killed before its answer came", async () => {
    const heard: Socket[] = [];
    const server = createServer((socket) => heard.push(socket.on("error", () => {}))).listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    if (typeof address !== "object" || address === null) throw new Error("the server has no port");
    const silent = await startPostgresProxy({ host: "127.0.0.1", port: address.port });
    const ask = async () => {
      const client = connect(silent.port, "127.0.0.1").on("error", () => {});
      const [upstream] = await Promise.all([once(server, "connection").then(() => heard.at(-1) as Socket), once(client, "connect")]);
      client.write(Buffer.concat([message("", "\0\x03\0\0"), message("Q", "SELECT mark(1)\0")]));
      await once(upstream, "data");
      return { client, upstream };
    };
    try {
      const lost = silent.loseNext("mark(", "committed");
      const killed = await ask();
      killed.client.destroy();
      await once(killed.upstream, "close");
      const next = await ask();
      next.upstream.write(message("Z", "I"));
      await Promise.all([once(next.client, "close"), lost]);
    } finally {
      await silent.close();
      server.close();
    }
  });
});

/** A message of PostgreSQL's protocol; a client's first one has no type. */
function message(type: string, body: string): Buffer {
  const size = Buffer.alloc(4);
  size.writeUInt32BE(body.length + 4);
  return Buffer.concat([Buffer.from(type), size, Buffer.from(body)]);
}
