/** Seals every endpoint's secrets with the ring's current key, a batch at a time. Safe to stop and to run again. */
import * as v from "valibot";
import type { KeyRing } from "../access/key-ring.ts";
import type { PlatformDb } from "../db/database.ts";
import { asId } from "../ids.ts";
import { openWebhookSecret, sealWebhookSecret } from "./webhook-secret.ts";

const BATCH = 100;
const FIRST = "00000000-0000-0000-0000-000000000000";
const Row = v.object({
  id: v.string(),
  tenant_id: v.string(),
  secret: v.instance(Buffer),
  secret_key_id: v.string(),
  previous_secret: v.nullable(v.instance(Buffer)),
  previous_secret_key_id: v.nullable(v.string()),
});
type Row = v.InferOutput<typeof Row>;

/** `unreadable`: sealed with a key that the ring does not have. They stay as they are. */
export async function resealWebhookSecrets(db: PlatformDb, ring: KeyRing): Promise<{ resealed: number; unreadable: number }> {
  const total = { resealed: 0, unreadable: 0 };
  for (let after = FIRST; ; ) {
    const rows = await oldRows(db, ring.current, after);
    const last = rows.at(-1);
    if (!last) return total;
    for (const row of rows) {
      const isDone = await reseal(db, ring, row).catch(() => null);
      if (isDone === null) total.unreadable += 1;
      else if (isDone) total.resealed += 1;
    }
    after = last.id;
  }
}

/** False: it was rotated in the meantime, and with the current key. */
async function reseal(db: PlatformDb, ring: KeyRing, row: Row): Promise<boolean> {
  const [tenantId, id] = [asId("tenant", row.tenant_id), asId("webhook", row.id)];
  const anew = (bytes: Buffer, keyId: string) => sealWebhookSecret(ring, tenantId, id, openWebhookSecret(ring, tenantId, id, { bytes, keyId }));
  const secret = anew(row.secret, row.secret_key_id);
  const previous = row.previous_secret && row.previous_secret_key_id !== null ? anew(row.previous_secret, row.previous_secret_key_id) : null;
  const { numUpdatedRows } = await db.platform((tx) =>
    tx
      .updateTable("webhooks")
      .set({ secret: secret.bytes, secret_key_id: secret.keyId, ...(previous ? { previous_secret: previous.bytes, previous_secret_key_id: previous.keyId } : {}) })
      .where("id", "=", row.id)
      .where("secret", "=", row.secret)
      .executeTakeFirst(),
  );
  return numUpdatedRows > 0n;
}

async function oldRows(db: PlatformDb, current: string, after: string): Promise<Row[]> {
  const rows = await db.platform((tx) =>
    tx
      .selectFrom("webhooks")
      .select(["id", "tenant_id", "secret", "secret_key_id", "previous_secret", "previous_secret_key_id"])
      .where((eb) => eb.or([eb("secret_key_id", "<>", current), eb("previous_secret_key_id", "<>", current)]))
      .where("id", ">", after)
      .orderBy("id")
      .limit(BATCH)
      .execute(),
  );
  return v.parse(v.array(Row), rows);
}
