import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { apiBase, findPullRequest } from "../../../functions/plugins/code-review/diff/github-pull-request.ts";
import { dataOf, diffAttachment, diffOf, files, found, newHarness } from "./review-of.ts";

const harness = newHarness();
const diff = diffOf("src/a.js", 1, ["+eval(x);"]);
let answer: (request: IncomingMessage, response: ServerResponse) => void;
const requests: { url: string | undefined; accept: string | undefined; authorization: string | undefined }[] = [];
const github = createServer((request, response) => {
  requests.push({ url: request.url, accept: request.headers.accept, authorization: request.headers.authorization });
  answer(request, response);
});
let base = "";

beforeAll(async () => {
  await new Promise<void>((resolve) => github.listen(0, "127.0.0.1", resolve));
  const address: AddressInfo | string | null = github.address();
  base = `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}/api/v3`;
});
afterEach(() => void requests.splice(0));
afterAll(async () => {
  await harness.close();
  github.closeAllConnections();
  await new Promise((resolve) => github.close(resolve));
});

const reply = (status: number, body = "", headers: Record<string, string> = {}) => {
  answer = (_request, response) => void response.writeHead(status, headers).end(body);
};
const review = (options: { task?: string; secrets?: Record<string, string>; url?: string } = {}) =>
  harness.run({
    task: options.task ?? "Review https://github.com/acme/shop/pull/12 please",
    pluginConfig: { github_api_url: options.url ?? base },
    ...(options.secrets ? { secrets: options.secrets } : {}),
  });

describe("fetching a pull request", () => {
  it("asks GitHub for the diff with the tenant's token, and prints the token nowhere", async () => {
    reply(200, diff);
    const output = await review({ secrets: { github_token: "a-token-of-this-tenant" } });
    expect(found(output)).toEqual(["no-eval@src/a.js:1"]);
    expect(requests).toEqual([{ url: "/api/v3/repos/acme/shop/pulls/12", accept: "application/vnd.github.diff", authorization: "Bearer a-token-of-this-tenant" }]);
    expect(JSON.stringify(harness.lastRun.events)).not.toContain("a-token-of-this-tenant");
  });

  it("asks without a token when none is set", async () => {
    reply(200, diff);
    await review();
    expect(requests[0]?.authorization).toBeUndefined();
  });

  it("takes the URL from an attachment", async () => {
    reply(200, diff);
    const output = await harness.run({
      task: "Review the attached change",
      pluginConfig: { github_api_url: base },
      attachments: [{ name: "PR", media_type: "text/uri-list", url: "https://github.com/acme/shop/pull/7/files" }],
    });
    expect(requests[0]?.url).toBe("/api/v3/repos/acme/shop/pulls/7");
    expect(output.status).toBe("partial");
  });

  it.each([
    [401, {}, "does not accept"],
    [403, {}, "read access"],
    [403, { "x-ratelimit-remaining": "0" }, "rate limit"],
    [404, {}, "may see"],
    [406, {}, "too large"],
    [429, {}, "rate limit"],
    [500, {}, "answered 500"],
  ])("explains a %i %o", async (status, headers, words) => {
    reply(status, "{}", headers);
    const output = await review({ secrets: { github_token: "a-token-of-this-tenant" } });
    expect(output).toMatchObject({ status: "failed", error_code: "INVALID_INPUT", error_cause: "caller" });
    expect(output.error).toContain(words);
  });

  it("tells a caller without a token that one would help", async () => {
    reply(404);
    expect((await review()).error).toContain("set the secret github_token");
    reply(403, "", { "x-ratelimit-remaining": "0" });
    expect((await review()).error).toContain("Set the secret github_token");
  });

  it("follows a redirect within the API, and takes the token nowhere else", async () => {
    answer = (request, response) => {
      if (request.url?.includes("/repos/")) response.writeHead(301, { location: "/api/v3/repositories/9/pulls/12" }).end();
      else response.writeHead(200).end(diff);
    };
    expect(found(await review({ secrets: { github_token: "a-token-of-this-tenant" } }))).toHaveLength(1);
    requests.splice(0);
    reply(302, "", { location: base.replace("127.0.0.1", "localhost") });
    expect((await review({ secrets: { github_token: "a-token-of-this-tenant" } })).error).toContain("redirected to another host");
    expect(requests).toHaveLength(1);
  });

  it("gives up on a circle of redirects", async () => {
    reply(302, "", { location: `${"/api/v3"}/again` });
    expect((await review()).error).toContain("redirected too often");
    expect(requests).toHaveLength(4);
  });

  it("refuses a diff that is too large without reading all of it", async () => {
    answer = (_request, response) => {
      response.writeHead(200);
      const chunk = "x".repeat(65_536);
      const write = (): void => {
        while (!response.destroyed && response.write(chunk));
        if (!response.destroyed) response.once("drain", write);
      };
      write();
    };
    expect((await review()).error).toContain("larger than 5 MB");
  });

  it("says when GitHub cannot be reached", async () => {
    answer = (request) => void request.socket.destroy();
    expect((await review()).error).toContain("could not be reached");
  });

  it("ends at once when the task is cancelled", async () => {
    const cancel = new AbortController();
    const closed = new Promise<void>((resolve) => {
      answer = (request) => {
        request.socket.once("close", () => resolve());
        cancel.abort();
      };
    });
    await expect(harness.run({ task: "Review https://github.com/acme/shop/pull/12", pluginConfig: { github_api_url: base }, signal: cancel.signal })).rejects.toThrow();
    await closed;
  });

  it("looks up no pull request of another server", async () => {
    const output = await harness.run({ task: "Review https://git.example.com/acme/shop/pull/12" });
    expect(output.error).toContain("git.example.com is not the GitHub server of this tenant");
  });
});

describe("the URL of a pull request", () => {
  it.each([
    ["see https://github.com/a/b.c/pull/3.", { host: "github.com", owner: "a", repo: "b.c", number: 3 }],
    ["https://github.com/a/b/pull/3/files#diff", { host: "github.com", owner: "a", repo: "b", number: 3 }],
    ["http://github.com/a/b/pull/3", null],
    ["https://github.com/a/../pull/3", null],
    ["https://github.com/a/b/issues/3", null],
    ["https://user:pw@github.com/a/b/pull/3", null],
  ])("is read from %s", (text, expected) => {
    expect(findPullRequest(text)).toEqual(expected);
  });

  it.each(["http://ghe.example.com", "ftp://x", "not a url", "https://u:p@ghe.example.com", "https://ghe.example.com/?a=b"])("is not asked for at %s", (url) => {
    expect(() => apiBase(url)).toThrow("github_api_url");
  });
});

describe("attachments", () => {
  it("reads whole files, with every line changed", async () => {
    const output = await harness.run({ task: "Review", attachments: files({ "./src/a.js": "run();\neval(x);\n" }) });
    expect(found(output)).toEqual(["no-eval@src/a.js:2"]);
    expect(dataOf(output)).toMatchObject({ files_reviewed: 1, lines_changed: 2 });
  });

  it("knows a diff by its name, its type, or its content", async () => {
    for (const [name, media_type] of [
      ["a.patch", "text/plain"],
      ["change", "text/x-diff"],
      ["change.txt", "text/plain"],
    ] as const) {
      expect(found(await harness.run({ task: "Review", attachments: [{ name, media_type, content: diff }] }))).toEqual(["no-eval@src/a.js:1"]);
    }
  });

  it("does not take code that quotes a diff for one", async () => {
    const output = await harness.run({ task: "Review", attachments: files({ "fixture.js": `const d = \`\n${diff}\`;\n` }) });
    expect(dataOf(output).files_reviewed).toBe(1);
    expect(found(output)).toEqual([]);
  });

  it("reads base64, and a diff in the command", async () => {
    expect(
      found(await harness.run({ task: "Review", attachments: [{ name: "a.diff", media_type: "text/x-diff", content_base64: Buffer.from(diff).toString("base64") }] })),
    ).toHaveLength(1);
    expect(found(await harness.run({ task: `Review this:\n\`\`\`diff\n${diff}\`\`\`` }))).toEqual(["no-eval@src/a.js:1"]);
  });

  it("puts the hunks of one file in two diffs together", async () => {
    const output = await harness.run({
      task: "Review",
      attachments: [...(diffAttachment(diff) ?? []), { name: "more.diff", media_type: "text/x-diff", content: diffOf("src/a.js", 40, ["+eval(y);"]) }],
    });
    expect(found(output)).toEqual(["no-eval@src/a.js:1", "no-eval@src/a.js:40"]);
  });

  it.each([
    ["nothing at all", undefined],
    ["an empty file", [{ name: "a.diff", media_type: "text/x-diff", content: "  \n" }]],
    ["a diff that is none", [{ name: "a.diff", media_type: "text/x-diff", content: "hello" }]],
    ["bytes", [{ name: "a.png", media_type: "image/png", content_base64: "iVBORw0KGgoAAAANSUhEUg==" }]],
    ["a URL that is no pull request", [{ name: "a", media_type: "text/plain", url: "http://169.254.169.254/latest" }]],
  ])("asks for something to review when it gets %s", async (_name, attachments) => {
    const output = await harness.run({ task: "Review my change", ...(attachments ? { attachments } : {}) });
    expect(output).toMatchObject({ status: "failed", error_code: "INVALID_INPUT", error_cause: "caller" });
    expect(output.error).toContain("Attach a unified diff");
  });

  it("refuses a change of binaries and names only", async () => {
    const output = await harness.run({ task: "Review", attachments: diffAttachment("diff --git a/i.png b/i.png\nBinary files a/i.png and b/i.png differ\n") });
    expect(output.error).toContain("changes no line of text");
  });
});
