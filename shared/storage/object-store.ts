/** Artifacts in any S3-compatible store. Only puts, gets, deletes, lists and presigned links: what every such server does alike. */
import { createHash } from "node:crypto";
import { CreateBucketCommand, DeleteObjectCommand, GetObjectCommand, HeadBucketCommand, ListObjectsV2Command, PutObjectCommand, S3Client } from "@aws-sdk/client-s3";
import { getSignedUrl } from "@aws-sdk/s3-request-presigner";

export const PRESIGNED_LINK_SEC = 300;
const REQUEST_TIMEOUT_MS = 20_000;

export interface ObjectStore {
  /** Throws also when the store says that it holds other bytes than were sent. */
  put(key: string, body: Uint8Array, mediaType: string, signal?: AbortSignal): Promise<void>;
  /** Null when there is no such object. */
  get(key: string, signal?: AbortSignal): Promise<Uint8Array | null>;
  delete(key: string): Promise<void>;
  /** Up to 1,000 keys with this prefix after `after`, in order; empty at the end. */
  list(prefix: string, after: string | null): Promise<StoredObject[]>;
  /** A link that serves the object as a download under this name for five minutes. */
  link(key: string, downloadName: string, mediaType: string): Promise<string>;
  ensureBucket(): Promise<void>;
  close(): void;
}

export interface StoredObject {
  key: string;
  modifiedAt: Date;
}

export interface ObjectStoreOptions {
  endpoint?: string;
  publicEndpoint?: string;
  bucket: string;
  region: string;
  accessKeyId?: string;
  secretAccessKey?: string;
}

export function openObjectStore(options: ObjectStoreOptions): ObjectStore {
  const { bucket } = options;
  const client = (endpoint: string | undefined) =>
    new S3Client({
      region: options.region,
      ...(endpoint ? { endpoint, forcePathStyle: true } : {}),
      ...(options.accessKeyId && options.secretAccessKey ? { credentials: { accessKeyId: options.accessKeyId, secretAccessKey: options.secretAccessKey } } : {}),
      maxAttempts: 3,
      requestHandler: { requestTimeout: REQUEST_TIMEOUT_MS, connectionTimeout: 2_000 },
    });
  const s3 = client(options.endpoint);
  const signer = options.publicEndpoint ? client(options.publicEndpoint) : s3;

  async function get(key: string, signal?: AbortSignal): Promise<Uint8Array | null> {
    try {
      const answer = await s3.send(new GetObjectCommand({ Bucket: bucket, Key: key }), { abortSignal: signal });
      return (await answer.Body?.transformToByteArray()) ?? new Uint8Array();
    } catch (error) {
      if (error instanceof Error && (error.name === "NoSuchKey" || error.name === "NotFound")) return null;
      throw error;
    }
  }

  return {
    async put(key, body, mediaType, signal) {
      const answer = await s3.send(new PutObjectCommand({ Bucket: bucket, Key: key, Body: body, ContentType: mediaType, ContentLength: body.byteLength }), {
        abortSignal: signal,
      });
      const etag = answer.ETag?.replaceAll('"', "") ?? "";
      // Many stores name an object by its MD5; where the name is another, only the bytes themselves say whether they are right.
      if (etag !== createHash("md5").update(body).digest("hex") && !Buffer.from(body).equals((await get(key, signal)) ?? Buffer.alloc(0))) {
        throw new Error("the object store holds other bytes than were sent");
      }
    },
    get,
    async delete(key) {
      await s3.send(new DeleteObjectCommand({ Bucket: bucket, Key: key }));
    },
    async list(prefix, after) {
      const answer = await s3.send(new ListObjectsV2Command({ Bucket: bucket, Prefix: prefix, ...(after === null ? {} : { StartAfter: after }) }));
      return (answer.Contents ?? []).flatMap(({ Key, LastModified }) => (Key === undefined ? [] : [{ key: Key, modifiedAt: LastModified ?? new Date() }]));
    },
    link(key, downloadName, mediaType) {
      // The name is checked when the artifact is stored, so it needs no quoting here.
      const command = new GetObjectCommand({ Bucket: bucket, Key: key, ResponseContentDisposition: `attachment; filename="${downloadName}"`, ResponseContentType: mediaType });
      return getSignedUrl(signer, command, { expiresIn: PRESIGNED_LINK_SEC });
    },
    async ensureBucket() {
      try {
        await s3.send(new HeadBucketCommand({ Bucket: bucket }));
      } catch {
        await s3.send(new CreateBucketCommand({ Bucket: bucket }));
      }
    },
    close() {
      s3.destroy();
      signer.destroy();
    },
  };
}
