/** The keys with which plugins may be signed, and whose they are. */
import { createPublicKey } from "node:crypto";
import { sql } from "kysely";
import type { PlatformDb } from "../db/database.ts";
import { newId } from "../ids.ts";
import { isSigningKey } from "../sdk/src/publishing/simple-signing.ts";
import type { PublisherKey } from "./verify-signature.ts";

/** All of them, those that are no longer valid too: a refusal says which it was. */
export async function listPublisherKeys(db: PlatformDb): Promise<PublisherKey[]> {
  const rows = await db.platform((tx) => tx.selectFrom("publisher_keys").selectAll().orderBy("name").execute());
  return rows.map((row) => ({ id: row.id, name: row.name, ownerTenantId: row.owner_tenant_id, publicKey: row.public_key, expiresAt: row.expires_at, revokedAt: row.revoked_at }));
}

export interface KeyToTrust {
  name: string;
  publicKey: string;
  ownerTenantId: string | null;
  expiresAt: Date | null;
}

/** Idempotent by name and key. Throws TypeError for what is no P-256 public key, and for a name that stands for another key. */
export async function trustPublisherKey(db: PlatformDb, key: KeyToTrust): Promise<void> {
  if (key.publicKey.includes("PRIVATE KEY")) throw new TypeError("this is a private key; the platform is given the public one");
  const parsed = createPublicKey(key.publicKey);
  if (!isSigningKey(parsed)) throw new TypeError("a publisher's key must be ECDSA on P-256, as cosign makes it");
  const pem = parsed.export({ type: "spki", format: "pem" }).toString();
  await db.platform(async (tx) => {
    await tx
      .insertInto("publisher_keys")
      .values({ id: newId("key"), name: key.name, owner_tenant_id: key.ownerTenantId, public_key: pem, expires_at: key.expiresAt })
      .onConflict((conflict) => conflict.column("name").doNothing())
      .execute();
    const known = await tx.selectFrom("publisher_keys").select(["public_key", "owner_tenant_id"]).where("name", "=", key.name).executeTakeFirstOrThrow();
    if (known.public_key !== pem || known.owner_tenant_id !== key.ownerTenantId) throw new TypeError(`${key.name} stands for another key already`);
  });
}

/** False: there is no such key. What it signed before keeps running; nothing more of it becomes routable. */
export async function revokePublisherKey(db: PlatformDb, name: string): Promise<boolean> {
  const changed = await db.platform((tx) =>
    tx.updateTable("publisher_keys").set({ revoked_at: sql<Date>`coalesce(revoked_at, now())` }).where("name", "=", name).returning("id").executeTakeFirst(),
  );
  return changed !== undefined;
}
