/** The whole way of a document, on both kinds of server: native PostgreSQL without pgvector, PGlite with it. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { HANDBOOK, settled } from "./documents.ts";

describe.each([
  ["PostgreSQL without pgvector", false],
  ["PGlite with pgvector", true],
])("on %s", (_, withPgvector) => {
  let platform: TestPlatform;
  let tenant: TestTenant;
  beforeAll(async () => {
    platform = await startTestPlatform({ withPgvector });
    tenant = await platform.tenant();
  });
  afterAll(() => platform?.stop());

  it("a document that was sent is found by what it says, with its headings and its source", async () => {
    const sent = await tenant.api("POST", "/v1/knowledge", { content: HANDBOOK, source_url: "https://wiki.example.com/handbook" });
    expect(sent.status).toBe(202);
    expect(await settled(tenant, sent.body.document_id)).toMatchObject({ status: "ready", chunks: 4, error: null, media_type: "text/markdown" });
    const found = await tenant.api("GET", `/v1/knowledge/search?q=${encodeURIComponent("How many days of vacation do I get per year?")}`);
    expect(found.body.results[0]).toMatchObject({
      document_id: sent.body.document_id,
      heading: "Handbook > Leave > Vacation",
      source_url: "https://wiki.example.com/handbook",
      content: expect.stringContaining("28 days"),
    });
    const similarities = found.body.results.map((result: { similarity: number }) => result.similarity);
    expect(similarities).toEqual([...similarities].sort((a, b) => b - a));
  });

  it("a question about something else finds nothing", async () => {
    expect((await tenant.api("GET", "/v1/knowledge/search?q=photosynthesis%20of%20algae")).body).toEqual({ results: [] });
  });

  it("nothing of it is found by another tenant, and nothing by anybody once it is deleted", async () => {
    const other = await platform.tenant();
    const query = `/v1/knowledge/search?q=${encodeURIComponent("vacation days per year")}`;
    expect((await tenant.api("GET", query)).body.results.length).toBeGreaterThan(0);
    expect((await other.api("GET", query)).body).toEqual({ results: [] });
    const { documents } = (await tenant.api("GET", "/v1/knowledge")).body;
    expect(documents).toHaveLength(1);
    expect((await other.api("DELETE", `/v1/knowledge/${documents[0].document_id}`)).status).toBe(404);
    expect((await tenant.api("DELETE", `/v1/knowledge/${documents[0].document_id}`)).status).toBe(204);
    expect((await tenant.api("GET", query)).body).toEqual({ results: [] });
    expect((await tenant.api("GET", `/v1/knowledge/${documents[0].document_id}`)).status).toBe(404);
  });
});
