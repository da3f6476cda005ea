/**
 * Seals all tenants' secrets, those of their webhooks too, with the current key: `npm run secrets:rotate`, with DATABASE_URL, SECRETS_KEY, SECRETS_KEY_ID and the
 * keys that still seal rows in SECRETS_OTHER_KEYS. It prints counts and nothing else; 1 when a secret could not be opened.
 *
 * A rotation in four steps, each rolled out everywhere before the next: the new key joins SECRETS_OTHER_KEYS; it becomes SECRETS_KEY
 * with its SECRETS_KEY_ID, and the old one goes to SECRETS_OTHER_KEYS; this runs until nothing is left; the old key goes.
 */
import { pathToFileURL } from "node:url";
import { rotateSecrets } from "../shared/access/rotate-secrets.ts";
import { openDatabase } from "../shared/db/database.ts";
import { readConfig, required } from "../shared/host/config.ts";
import { keyRing } from "../shared/host/resources/secrets.ts";
import { resealWebhookSecrets } from "../shared/webhooks/reseal-webhook-secrets.ts";
import { asCommand } from "./command.ts";

const USAGE = `npm run secrets:rotate

Seals every secret with SECRETS_KEY. It needs DATABASE_URL, SECRETS_KEY, SECRETS_KEY_ID, and in SECRETS_OTHER_KEYS the keys that still seal rows.`;

export async function rotate(env: Record<string, string | undefined>): Promise<number> {
  const config = readConfig(env);
  const ring = keyRing(config);
  const db = await openDatabase({ url: required(config, "DATABASE_URL"), driver: config.DATABASE_DRIVER, poolSize: 1 });
  try {
    const both = [await rotateSecrets(db, ring), await resealWebhookSecrets(db, ring)];
    const [resealed, unreadable] = [both.reduce((sum, one) => sum + one.resealed, 0), both.reduce((sum, one) => sum + one.unreadable, 0)];
    console.log(`${resealed} secrets sealed anew, ${unreadable} could not be opened.`);
    return unreadable === 0 ? 0 : 1;
  } finally {
    await db.close();
  }
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) await asCommand(USAGE, () => rotate(process.env));
