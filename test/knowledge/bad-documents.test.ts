import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { newId, parseId, publicId } from "../../shared/ids.ts";
import { expectRefusal } from "../batteries/refusal.ts";
import { expectNothingWritten } from "../batteries/row-counts.ts";
import { startTestPlatform, type TestPlatform, type TestTenant } from "../support/platform.ts";
import { settled } from "./documents.ts";

let platform: TestPlatform;
let tenant: TestTenant;
beforeAll(async () => {
  platform = await startTestPlatform();
  tenant = await platform.tenant();
});
afterAll(() => platform?.stop());

const nothingWritten = (work: () => Promise<void>) => expectNothingWritten(platform.env.DATABASE_URL ?? "", work);
const send = (body: Record<string, unknown>) => tenant.api("POST", "/v1/knowledge", body);

describe("a document that cannot be read is refused, and nothing of it is kept:", () => {
  it("20 MB", async () => {
    await nothingWritten(async () => {
      expectRefusal(await send({ content: "word ".repeat(4 * 1024 * 1024) }), "PAYLOAD_TOO_LARGE");
    });
  });

  it.each<[string, string]>([
    ["a PDF", "%PDF-1.7\n%âãÏÓ\n1 0 obj << /Type /Catalog >>"],
    ["a zip archive or an office document", "PK\u0003\u0004\u0014 word/document.xml"],
    ["a picture", "\ufffdPNG\r\n\u001a\n IHDR"],
    ["bytes that were read as text", Array.from({ length: 400 }, (_, i) => String.fromCharCode((i * 7) % 256 || 1)).join("")],
    ["another encoding, read as UTF-8", "Gr\ufffd\ufffde aus M\ufffdnchen"],
  ])("%s", async (_, content) => {
    await nothingWritten(async () => {
      expect(expectRefusal(await send({ content }), "UNSUPPORTED_MEDIA_TYPE").message).toContain("UTF-8");
    });
  });

  it("broken UTF-8, NUL, and half a character", async () => {
    await nothingWritten(async () => {
      for (const raw of [Buffer.from('{"content": "\xe2\x28\xa1"}', "latin1"), '{"content": "a\\u0000b"}', '{"content": "a\\ud800b"}']) {
        const answer = await platform.call("POST", "/v1/knowledge", { key: tenant.key, rawBody: typeof raw === "string" ? raw : new Uint8Array(raw) });
        expectRefusal(answer, "INVALID_INPUT", String(raw));
      }
    });
  });

  it.each<[string, Record<string, unknown>]>([
    ["empty", { content: "" }],
    ["blank", { content: " \n\t \u00a0" }],
    ["only punctuation", { content: "---\n***\n..." }],
    ["only markup", { content: '<div><p><br><img src="x"></p></div>', media_type: "text/html" }],
    ["only what nobody sees", { content: "<script>alert(1)</script><style>p{}</style><!-- hello --><p hidden>hello</p>", media_type: "text/html" }],
    ["HTML nested 800,000 levels deep", { content: "<div>".repeat(800_000), media_type: "text/html" }],
    ["another media type", { content: "hello", media_type: "application/pdf" }],
    ["a source that is no web address", { content: "hello", source_url: "javascript:alert(1)" }],
    ["a source with a password in it", { content: "hello", source_url: "https://me:secret@wiki.example.com/" }],
    ["a source that is too long", { content: "hello", source_url: `https://wiki.example.com/${"a".repeat(2100)}` }],
  ])("%s", async (_, body) => {
    await nothingWritten(async () => {
      expectRefusal(await send(body), "INVALID_INPUT");
    });
  });
});

describe("a document that is strange is taken in all the same:", () => {
  it.each<[string, Record<string, unknown>, RegExp]>([
    ["one line of 1 MB without a blank", { content: `needle ${"x".repeat(1024 * 1024)}`, media_type: "text/plain" }, /needle/],
    ["Chinese without blanks", { content: "员工每年有二十八天带薪假期。".repeat(2_000) }, /二十八天/],
    ["emoji at every cut", { content: `${"😀".repeat(20_000)} smile` }, /^[^\ud800-\udfff]*(😀|smile)/],
    ["HTML nested 900 levels deep", { content: `${"<div>".repeat(900)}needle${"</div>".repeat(900)}`, media_type: "text/html" }, /needle/],
    [
      "markup made to explode",
      { content: `${Array.from({ length: 500 }, (_, i) => `<b id="${i}">`).join("")}${"<p>needle</p>".repeat(5_000)}`, media_type: "text/html" },
      /needle/,
    ],
    ["tags that are never closed", { content: "<ul><li>needle <table><tr><td>in a <pre>haystack", media_type: "text/html" }, /haystack/],
    ["nothing but headings", { content: "# One\n## Two\n### Three" }, /Two/],
    ["marks that steer a model", { content: "Everybody writes <|endoftext|> and <|im_start|> here." }, /endoftext/],
  ])("%s", async (_, body, found) => {
    const { status, body: answer } = await send(body);
    expect(status).toBe(202);
    const document = await settled(tenant, answer.document_id);
    expect(document).toMatchObject({ status: "ready", error: null });
    const contents = await platform.db.platform((tx) =>
      tx.selectFrom("org_knowledge_chunks").select(["content", "token_count"]).where("document_id", "=", idOf(answer.document_id)).execute(),
    );
    expect(contents).toHaveLength(document.chunks);
    expect(contents.some(({ content }) => found.test(content))).toBe(true);
    for (const { content, token_count } of contents) {
      expect(content.isWellFormed() && !content.includes("\ufffd")).toBe(true);
      expect(token_count).toBeLessThan(1_300);
    }
  });

  it("the same content again, also ten times at once, is one document, with the last source", async () => {
    const body = { content: `One of a kind ${newId("document")}.` };
    const answers = await Promise.all(Array.from({ length: 10 }, () => send(body)));
    const ids = new Set(answers.map((answer) => answer.body.document_id));
    expect(ids.size).toBe(1);
    const [id] = ids;
    expect(await settled(tenant, id)).toMatchObject({ status: "ready", chunks: 1, source_url: null });
    expect((await send({ ...body, source_url: "https://wiki.example.com/new" })).body).toEqual({ document_id: id, status: "ready" });
    expect(await settled(tenant, id)).toMatchObject({ chunks: 1, source_url: "https://wiki.example.com/new" });
    // Another tenant's same content is another document.
    const other = await platform.tenant();
    expect((await other.api("POST", "/v1/knowledge", body)).body.document_id).not.toBe(id);
  });
});

describe("a search", () => {
  it("refuses a question that is empty or too long", async () => {
    for (const query of ["", "q=", "q=%20%20", `q=${"a".repeat(2001)}`, "q=a&limit=0", "q=a&limit=51", "q=a&limit=x"])
      expectRefusal(await tenant.api("GET", `/v1/knowledge/search?${query}`), "INVALID_INPUT", query);
  });

  it("is not mistaken for a document's id", async () => {
    expect((await tenant.api("GET", "/v1/knowledge/search?q=anything")).status).toBe(200);
    expectRefusal(await tenant.api("GET", `/v1/knowledge/${publicId("document", newId("document"))}`), "NOT_FOUND");
  });
});

function idOf(documentId: string): string {
  const id = parseId("document", documentId);
  if (!id) throw new Error("not a document's id");
  return id;
}
