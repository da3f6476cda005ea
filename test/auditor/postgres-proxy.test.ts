import pg from "pg";
import { afterAll, beforeAll, describe, expect, inject, it } from "vitest";
import { type PostgresProxy, startPostgresProxy } from "../faults/postgres-proxy.ts";
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

async function markThroughProxy(name: string): Promise<void> {
  const client = new pg.Client({ connectionString: lossyUrl, query_timeout: 10_000 });
  client.on("error", () => {});
  await client.connect();
  try {
    await client.query("SELECT 1");
    await client.query("SELECT mark($1)", [name]);
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
    const happened = proxy.loseNext("mark(", "committed");
    await expect(markThroughProxy("committed")).rejects.toThrow();
    await happened;
    expect(await marks("committed")).toBe(1);
  });

  it("loses a statement before the server has it, which looks the same to the client", async () => {
    const happened = proxy.loseNext("mark(", "lost");
    await expect(markThroughProxy("lost")).rejects.toThrow();
    await happened;
    expect(await marks("lost")).toBe(0);
    await markThroughProxy("after");
    expect(await marks("after")).toBe(1);
  });
});
