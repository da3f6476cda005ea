import { createHash } from "node:crypto";
import { describe, expect, it } from "vitest";
import { ERRORS } from "../../shared/errors.ts";
import { contentSecurityPolicy, docsPage, type ShownDocument } from "../../shared/host/docs-page.ts";
import { DOCUMENT, PUBLIC } from "../batteries/declared.ts";

const page = await docsPage(DOCUMENT as ShownDocument, "https://api.example.com");

describe("the documentation page", () => {
  it("shows every call, every scope and every code", () => {
    for (const fn of PUBLIC) {
      expect(page, fn.name).toContain(`<article id="${fn.name}">`);
      expect(page, fn.name).toContain(fn.summary.split(/['?`.]/)[0]);
      if (fn.scope !== "public" && fn.scope !== "any") expect(page).toContain(`<code>${fn.scope}</code>`);
    }
    for (const code of Object.keys(ERRORS)) expect(page).toContain(`<code>${code}</code>`);
    expect(page).toContain("curl -X POST https://api.example.com/v1/tasks");
    expect(page).not.toMatch(/undefined|\[object|NaN/);
  });

  it("has all that it links to, each id once", () => {
    const ids = [...page.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id);
    expect(new Set(ids).size).toBe(ids.length);
    for (const [, target] of page.matchAll(/href="#([^"]+)"/g)) expect(ids, target).toContain(target);
  });

  it("loads nothing from anywhere", () => {
    const loading = [...page.matchAll(/<(?:script|link|img|iframe|object|embed|source|base|form)\b[^>]*>/g)].map(([tag]) => tag);
    expect(loading).toEqual(['<link rel="icon" href="data:,">', "<script>"]);
    expect(page).not.toMatch(/@import|url\(|\son\w+="|\sstyle="|javascript:/);
  });

  it("is covered by its policy: both inline parts by their hashes, and nothing else", () => {
    const policy = contentSecurityPolicy();
    for (const tag of ["style", "script"]) {
      const [, text = ""] = new RegExp(`<${tag}>([\\s\\S]*?)</${tag}>`).exec(page) ?? [];
      expect(text.length).toBeGreaterThan(100);
      expect(policy).toContain(`${tag}-src 'sha256-${createHash("sha256").update(text).digest("base64")}'`);
    }
    expect(policy).toMatch(/^default-src 'none';/);
    expect(policy).not.toMatch(/unsafe|\*|https?:/);
  });

  it("escapes whatever a declaration may say", async () => {
    const evil = `"><img src=x onerror=alert(1)></code></script><script>alert(1)</script>'&\``;
    const schema = { type: "string", description: evil, pattern: evil, enum: [evil], default: evil, examples: [evil] };
    const hostile: ShownDocument = {
      info: { title: evil, version: evil, summary: evil, description: `**${evil}** \`${evil}\`` },
      tags: [{ name: evil, description: evil }],
      paths: {
        [`/${evil}/{id}`]: {
          [evil]: {
            operationId: evil,
            tags: [evil],
            summary: evil,
            description: evil,
            security: [{ [evil]: [evil] }],
            parameters: [{ name: evil, in: evil, required: true, description: evil, schema }],
            requestBody: {
              content: {
                "application/json": {
                  schema: { type: "object", properties: { [evil]: schema }, required: [evil] },
                  examples: { [evil]: { summary: evil, value: { [evil]: evil } } },
                },
              },
            },
            responses: {
              [evil]: { description: evil, headers: { [evil]: { description: evil } }, content: { [evil]: { schema: { type: "object", properties: { [evil]: schema } } } } },
              "400": { description: evil, "x-error-codes": [evil] },
            },
          },
        },
      },
      components: { schemas: {} },
    };
    const text = await docsPage(hostile, evil);
    // Every piece that could end an attribute, a tag or a script, as it was given.
    for (const piece of [evil, `"><img`, "<img", "</code></script>", "<script>alert", "'&`"]) expect(text, piece).not.toContain(piece);
    expect(text.match(/<script>/g)).toHaveLength(1);
    expect(text.match(/<\/script>/g)).toHaveLength(1);
    expect(text.length).toBeGreaterThan(5_000);
  });

  it("quotes bodies for the shell", async () => {
    const text = await docsPage(
      {
        info: { title: "t", version: "1", summary: "s", description: "d" },
        tags: [{ name: "x", description: "x" }],
        paths: {
          "/x": {
            post: {
              operationId: "x",
              tags: ["x"],
              summary: "x",
              description: "x",
              security: [],
              requestBody: { content: { "application/json": { examples: { a: { summary: "a", value: "it's" } } } } },
              responses: {},
            },
          },
        },
        components: { schemas: {} },
      },
      "http://h",
    );
    expect(text).toContain("-d &#39;&quot;it&#39;\\&#39;&#39;s&quot;&#39;");
  });
});
