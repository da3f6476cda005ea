import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { Socket } from "node:net";
import fc from "fast-check";
import { afterEach, describe, expect, it, vi } from "vitest";
import { offlineEmbedder } from "../../shared/models/embeddings-offline/offline-embedder.ts";
import { decodeWordVectors, encodeWordVectors } from "../../shared/models/embeddings-offline/word-vectors.ts";
import { wordsOf } from "../../shared/models/embeddings-offline/words.ts";

const WORD_VECTORS = new URL("../../shared/models/embeddings-offline/word-vectors.bin", import.meta.url);
const embedder = offlineEmbedder();

async function embedOne(text: string): Promise<Float32Array> {
  const [vector] = await embedder.embed([text]);
  if (vector === undefined) throw new Error("no vector came back");
  return vector;
}

async function cosine(a: string, b: string): Promise<number> {
  const [x, y] = [await embedOne(a), await embedOne(b)];
  return x.reduce((sum, value, i) => sum + value * (y[i] ?? 0), 0);
}

afterEach(() => {
  vi.restoreAllMocks();
});

describe("the offline embedder", () => {
  it("gives the same bytes for the same text, from another instance and in another order", async () => {
    const texts = ["Review this change", "plot sales by month", "triage TCK-812"];
    const forwards = await embedder.embed(texts);
    const backwards = await offlineEmbedder().embed([...texts].reverse());
    expect(forwards.map(bytes)).toEqual(backwards.reverse().map(bytes));
  });

  it("still makes the vectors that its name stands for", async () => {
    // Stored vectors outlive the code: a changed digest means that OFFLINE_MODEL needs a new name.
    const rounded = Array.from(await embedOne("Review this pull request for security problems, pls (see utils.ts)"), (x) => Math.round(x * 1e5));
    expect(embedder.model).toBe("offline-hybrid-1");
    expect(createHash("sha256").update(JSON.stringify(rounded)).digest("hex").slice(0, 16)).toBe("b938fac4d9c2d306");
  });

  it("opens no connection", async () => {
    const connect = vi.spyOn(Socket.prototype, "connect");
    const fetch = vi.spyOn(globalThis, "fetch");
    await offlineEmbedder().embed(["is anybody out there"]);
    expect(connect).not.toHaveBeenCalled();
    expect(fetch).not.toHaveBeenCalled();
  });

  it("gives vectors of 1536 dimensions and length 1 for any text, and zero for a text without words", async () => {
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: "binary", maxLength: 300 }), async (text) => {
        const vector = await embedOne(text);
        const length = Math.sqrt(vector.reduce((sum, x) => sum + x * x, 0));
        expect(vector).toHaveLength(1536);
        expect(Math.abs(length - 1) < 1e-4 || length === 0).toBe(true);
      }),
      { numRuns: 200 },
    );
    for (const text of ["", "   ", "\u0000\u0001", "🍕🍕🍕", "1234 5678", "\ud800"]) expect((await embedOne(text)).every((x) => x === 0)).toBe(true);
  });

  it("reads at most a few thousand characters, wherever the rest of a huge command leads", async () => {
    const wish = "Review this pull request for security problems.";
    const filler = "lorem ipsum dolor ".repeat(60_000);
    expect(filler.length).toBeGreaterThan(1_000_000);
    const middles = [`${wish} ${filler} ${wish}`, `${wish} ${filler}pizza pizza pizza${filler} ${wish}`];
    const [one, other] = await embedder.embed(middles);
    expect(bytes(one)).toBe(bytes(other));
    expect(wordsOf("a".repeat(1_000_000)).every((word) => word.text.length <= 40)).toBe(true);
    expect(wordsOf("ab ".repeat(500_000)).length).toBeLessThan(2_000);
  });

  it("hears the wish at either end of pasted material", async () => {
    const pasted = Array.from({ length: 300 }, (_, i) => `+ const total${i} = price * amount; // order ${i}`).join("\n");
    const wish = "Review this pull request";
    const plain = await cosine(wish, pasted);
    expect(await cosine(wish, `${wish}\n${pasted}`)).toBeGreaterThan(plain + 0.1);
    expect(await cosine(wish, `${pasted}\n${wish}`)).toBeGreaterThan(plain + 0.1);
  });

  it("puts other words for the same wish nearer than other wishes", async () => {
    const capability = "Track deliveries of parcels to customers.";
    expect(await cosine("where is my package", capability)).toBeGreaterThan(await cosine("where is my unit test", capability));
  });

  it("sees through a slip of the finger", async () => {
    expect(await cosine("wrtie a tutorail", "write a tutorial")).toBeGreaterThan(0.5);
  });

  it("reads other alphabets and accents", async () => {
    expect(await cosine("Überprüfung des Codes", "uberprufung des codes")).toBeCloseTo(1, 5);
    expect((await embedOne("コードをレビューして")).some((x) => x !== 0)).toBe(true);
  });

  it("stops between texts when it is told to", async () => {
    const stop = new AbortController();
    const running = embedder.embed(new Array<string>(1_000).fill("a long list of sentences"), stop.signal);
    stop.abort(new Error("enough"));
    await expect(running).rejects.toThrow("enough");
  });
});

describe("the file of word vectors", () => {
  it("comes back as it was written", () => {
    const { dimensions, ranks, rows } = decodeWordVectors(
      encodeWordVectors(
        ["the", "naïve"],
        [
          [1, -0.5],
          [0, 0.25],
        ],
      ),
    );
    expect({ dimensions, ranks: [...ranks], rows: [...rows] }).toEqual({
      dimensions: 2,
      ranks: [
        ["the", 0],
        ["naïve", 1],
      ],
      rows: [127, -63, 0, 127],
    });
  });

  it("holds the 40,000 commonest words in 100 dimensions", async () => {
    const { dimensions, ranks } = decodeWordVectors(await readFile(WORD_VECTORS));
    expect({ dimensions, words: ranks.size, commonest: ranks.get("the") }).toEqual({ dimensions: 100, words: 40_000, commonest: 0 });
  });

  it("is refused when it is something else or was cut short", () => {
    const whole = encodeWordVectors(["one"], [[1, 2, 3]]);
    expect(() => decodeWordVectors(new TextEncoder().encode("version https://git-lfs.github.com/spec/v1"))).toThrow("not a file of word vectors");
    expect(() => decodeWordVectors(whole.subarray(0, -1))).toThrow(`has ${whole.length - 1} bytes instead of ${whole.length}`);
    expect(() => decodeWordVectors(new Uint8Array())).toThrow("not a file of word vectors");
  });
});

function bytes(vector: Float32Array | undefined): string {
  return vector === undefined ? "" : Buffer.from(vector.buffer).toString("base64");
}
