/** What a receiver checks: Standard Webhooks' three headers, and the platform's own. */
import { createHmac } from "node:crypto";

export interface Signing {
  /** The event's id: the same for every attempt. */
  id: string;
  /** Seconds since 1970, of this attempt. */
  timestamp: number;
  body: string;
  /** The newest first; during a rotation the one before as well, and then every signature stands twice. */
  secrets: readonly string[];
}

export function signatureHeaders({ id, timestamp, body, secrets }: Signing): Record<string, string> {
  return {
    "webhook-id": id,
    "webhook-timestamp": String(timestamp),
    "webhook-signature": secrets.map((secret) => `v1,${hmac(keyOf(secret), `${id}.${timestamp}.${body}`).toString("base64")}`).join(" "),
    // Over the body alone, with the secret's text as it was shown.
    "x-aau-signature": secrets.map((secret) => `sha256=${hmac(secret, body).toString("hex")}`).join(","),
  };
}

const keyOf = (secret: string): Buffer => Buffer.from(secret.slice(secret.indexOf("_") + 1), "base64");
const hmac = (key: string | Buffer, text: string): Buffer => createHmac("sha256", key).update(text).digest();
