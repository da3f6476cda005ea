/** A small OCI registry: blobs, manifests by digest and by tag, and the two requests of a push. What it stores can be spoilt. */
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { ImageSignature } from "../../shared/sdk/src/publishing/simple-signing.ts";

export interface ImageStore {
  url: string;
  host: string;
  /** Stores an image and says its digest. `tag` is moved to it. */
  image(repository: string, content: string, tag?: string): string;
  /** Puts signatures where cosign would. */
  sign(repository: string, digest: string, signatures: readonly ImageSignature[], spoil?: (layer: Layer) => Layer): void;
  /** What a path gives instead of what is stored there. */
  spoil(path: string, answer: (response: ServerResponse) => void): void;
  /** Paths that were asked for. */
  readonly asked: string[];
  stop(): Promise<void>;
}

export interface Layer {
  mediaType: string;
  digest: string;
  size: number;
  annotations: Record<string, string>;
}

const sha256 = (bytes: Uint8Array | string) => `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
const MANIFEST = "application/vnd.oci.image.manifest.v1+json";

export async function startImageStore(): Promise<ImageStore> {
  const files = new Map<string, Uint8Array>();
  const spoilt = new Map<string, (response: ServerResponse) => void>();
  const asked: string[] = [];
  const server = createServer((request, response) => {
    void answer(request, response).catch(() => response.destroy());
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  const host = `127.0.0.1:${typeof address === "object" && address ? address.port : 0}`;

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname, searchParams } = new URL(request.url ?? "/", `http://${host}`);
    asked.push(pathname);
    const other = spoilt.get(pathname);
    if (other) return other(response);
    if (request.method === "POST" && pathname.endsWith("/blobs/uploads/")) return void response.writeHead(202, { location: `${pathname}1` }).end();
    if (request.method === "PUT") {
      const chunks: Uint8Array[] = [];
      for await (const chunk of request) chunks.push(chunk);
      const bytes = Buffer.concat(chunks);
      const digest = searchParams.get("digest");
      if (digest !== null && digest !== sha256(bytes)) return void response.writeHead(400).end();
      files.set(digest === null ? pathname : pathname.replace(/\/uploads\/.*$/, `/${digest}`), bytes);
      if (digest === null) files.set(pathname.replace(/[^/]+$/, sha256(bytes)), bytes);
      return void response.writeHead(201).end();
    }
    const found = files.get(pathname);
    if (!found) return void response.writeHead(404).end('{"errors":[{"code":"MANIFEST_UNKNOWN"}]}');
    response.writeHead(200, { "content-type": pathname.includes("/manifests/") ? MANIFEST : "application/octet-stream", "content-length": found.byteLength });
    response.end(request.method === "HEAD" ? undefined : found);
  }

  function putManifest(repository: string, tag: string | undefined, manifest: unknown): string {
    const bytes = Buffer.from(JSON.stringify(manifest));
    const digest = sha256(bytes);
    for (const reference of [digest, ...(tag ? [tag] : [])]) files.set(`/v2/${repository}/manifests/${reference}`, bytes);
    return digest;
  }

  return {
    url: `http://${host}`,
    host,
    asked,
    image: (repository, content, tag) => putManifest(repository, tag, { schemaVersion: 2, mediaType: MANIFEST, config: { digest: sha256(content) }, layers: [] }),
    sign(repository, digest, signatures, spoil = (layer) => layer) {
      const layers = signatures.map(({ payload, signature }) => {
        files.set(`/v2/${repository}/blobs/${sha256(payload)}`, payload);
        return spoil({
          mediaType: "application/vnd.dev.cosign.simplesigning.v1+json",
          digest: sha256(payload),
          size: payload.byteLength,
          annotations: { "dev.cosignproject.cosign/signature": Buffer.from(signature).toString("base64") },
        });
      });
      putManifest(repository, `${digest.replace(":", "-")}.sig`, { schemaVersion: 2, mediaType: MANIFEST, layers });
    },
    spoil: (path, answer) => void spoilt.set(path, answer),
    async stop() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
