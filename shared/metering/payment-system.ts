/** The operator's payment system, reached by HTTP. Its address is a setting and no tenant's word, so it may be inside the cluster. */
import { createHmac } from "node:crypto";
import { timeLimit } from "../sdk/src/time-limit.ts";
import type { PaymentSystem } from "./announce-invoices.ts";

const TIMEOUT_MS = 10_000;

/** Signed as webhooks are: `X-AAU-Signature: sha256=…` over the body. */
export function openPaymentSystem(url: string, secret: string): PaymentSystem {
  return async ({ body, headers }, signal) => {
    const signature = createHmac("sha256", secret).update(body).digest("hex");
    const answer = await fetch(url, {
      method: "POST",
      headers: { ...headers, "x-aau-signature": `sha256=${signature}` },
      body,
      redirect: "error",
      signal: AbortSignal.any([signal, timeLimit(TIMEOUT_MS)]),
    });
    // Nobody reads it, and an unread body would keep its connection.
    await answer.body?.cancel();
    if (!answer.ok) throw new Error(`The payment system answered with status ${answer.status}.`);
  };
}
