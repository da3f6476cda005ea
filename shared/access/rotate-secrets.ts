/** Seals every secret with the ring's current key, a batch at a time, while executions go on reading. Safe to stop and to run again. */
import * as v from "valibot";
import type { PlatformDb } from "../db/database.ts";
import { asId } from "../ids.ts";
import type { KeyRing } from "./key-ring.ts";

export interface Rotation {
  resealed: number;
  /** Sealed with a key that the ring does not have, or not with the one it says. They stay as they are. */
  unreadable: number;
}

const BATCH = 100;
const Row = v.object({ id: v.string(), tenant_id: v.string(), plugin_name: v.string(), secret_name: v.string(), key_id: v.string() });
const Done = v.object({ resealed: v.number(), unreadable: v.number() });
const FIRST = "00000000-0000-0000-0000-000000000000";

export async function rotateSecrets(db: PlatformDb, ring: KeyRing): Promise<Rotation> {
  const total: Rotation = { resealed: 0, unreadable: 0 };
  for (let after = FIRST; ; ) {
    const rows = await oldSecrets(db, ring.current, after);
    const last = rows.at(-1);
    if (!last) return total;
    const openable = rows.flatMap((row) => {
      const address = { tenantId: asId("tenant", row.tenant_id), plugin: row.plugin_name, name: row.secret_name };
      const [key, newKey] = [ring.keyOf(row.key_id, address), ring.keyOf(ring.current, address)];
      return key === null ? [] : [{ id: row.id, keyId: row.key_id, key, newKey }];
    });
    const [raw] = await db.call("SELECT resealed, unreadable FROM reseal_tenant_secrets($1, $2, $3, $4, $5)", [
      openable.map((s) => s.id),
      openable.map((s) => s.keyId),
      openable.map((s) => s.key),
      openable.map((s) => s.newKey),
      ring.current,
    ]);
    const done = v.parse(Done, raw);
    total.resealed += done.resealed;
    total.unreadable += done.unreadable + rows.length - openable.length;
    after = last.id;
  }
}

async function oldSecrets(db: PlatformDb, current: string, after: string) {
  const rows = await db.platform((tx) =>
    tx
      .selectFrom("tenant_secrets")
      .select(["id", "tenant_id", "plugin_name", "secret_name", "key_id"])
      .where("key_id", "<>", current)
      .where("id", ">", after)
      .orderBy("id")
      .limit(BATCH)
      .execute(),
  );
  return v.parse(v.array(Row), rows);
}
