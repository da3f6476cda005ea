/**
 * Tenants' secrets: sealed by pgcrypto, opened only for one execution, never cached and never given back by the API.
 *
 * pgcrypto works in the server, so a value travels there and back as a parameter. The ring's keys do not: each secret has a derived
 * key of its own. An operator who logs statements must keep parameters out of that log: `log_parameter_max_length = 0`, and
 * `log_parameter_max_length_on_error` left at its default of 0.
 */
import { sql } from "kysely";
import * as v from "valibot";
import { sqlState, type TenantDb } from "../db/database.ts";
import { Refusal } from "../errors.ts";
import type { TenantId } from "../ids.ts";
import type { Manifest } from "../sdk/src/manifest.ts";
import { type AuditActor, recordAudit } from "./audit-log.ts";
import type { KeyRing } from "./key-ring.ts";

export interface TenantSecrets {
  /** Sets or replaces a secret. */
  put(db: TenantDb, tenantId: TenantId, actor: AuditActor, plugin: string, name: string, value: string): Promise<StoredSecret & { isNew: boolean }>;
  /** The named secrets that the tenant has set for this plugin. */
  reveal(db: TenantDb, tenantId: TenantId, plugin: string, names: readonly string[]): Promise<Record<string, string>>;
}

export interface StoredSecret {
  name: string;
  createdAt: Date;
  updatedAt: Date;
}

/** The names that a plugin is given: those that its manifest declares and its scopes allow. */
export function grantedSecretNames(manifest: Pick<Manifest, "required_secret_names" | "required_scopes">): string[] {
  return manifest.required_secret_names.filter((name) => manifest.required_scopes.includes(`secrets:${name}`));
}

const Sealed = v.object({ is_new: v.boolean(), created_at: v.date(), updated_at: v.date() });
const Opened = v.object({ name: v.string(), key_id: v.string(), value: v.nullable(v.string()) });

/** SQLSTATE of pgcrypto when a key does not fit. */
const WRONG_KEY = "39000";

export function openTenantSecrets(ring: KeyRing): TenantSecrets {
  return {
    async put(db, tenantId, actor, plugin, name, value) {
      const key = ring.keyOf(ring.current, { tenantId, plugin, name });
      const row = await withoutParameters(() =>
        db.tenant(tenantId, async (tx) => {
          const { rows } = await sql`SELECT * FROM seal_tenant_secret(${tenantId}, ${plugin}, ${name}, ${value}, ${key}, ${ring.current})`.execute(tx);
          await recordAudit(tx, tenantId, { actor, action: "secret.set", targetType: "secret", targetId: `${plugin}/${name}` });
          return rows[0];
        }),
      );
      const { is_new, created_at, updated_at } = v.parse(Sealed, row);
      return { name, createdAt: created_at, updatedAt: updated_at, isNew: is_new };
    },

    async reveal(db, tenantId, plugin, names) {
      if (names.length === 0) return {};
      const keys = names.flatMap((name) => ring.ids.map((id) => ({ name, id, key: ring.keyOf(id, { tenantId, plugin, name }) })));
      const rows = await withoutParameters(() =>
        db.call("SELECT name, key_id, value FROM open_tenant_secrets($1, $2, $3, $4, $5, $6)", [
          tenantId,
          plugin,
          names,
          keys.map((k) => k.name),
          keys.map((k) => k.id),
          keys.map((k) => k.key),
        ]),
      );
      return Object.fromEntries(
        v.parse(v.array(Opened), rows).map(({ name, key_id, value }) => {
          if (value === null) throw unreadable(`no key has the id ${key_id}`);
          return [name, value];
        }),
      );
    },
  };
}

/** What an operator mends by giving the right keys; until then the work that needs the secret waits. The log gets the reason. */
function unreadable(reason: string): Refusal {
  return new Refusal("SERVICE_UNAVAILABLE", { message: "A secret of this plugin cannot be opened now.", retryAfterSec: 30, cause: new TypeError(`tenant_secrets: ${reason}`) });
}

/** A database's error may quote the statement's parameters, so none goes further than its code. */
async function withoutParameters<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const state = sqlState(error);
    if (state === WRONG_KEY) throw unreadable("the key with the row's key id is not the one that sealed it");
    if (error instanceof Refusal) throw new Refusal(error.code, { message: error.message, headers: error.headers });
    throw Object.assign(new Error("tenant_secrets: the statement failed"), state === null ? {} : { code: state });
  }
}

const Row = v.object({ secret_name: v.string(), created_at: v.date(), updated_at: v.date() });

/** Names and times, in the order of the names; never a value. */
export async function listTenantSecrets(db: TenantDb, tenantId: TenantId, plugin: string): Promise<StoredSecret[]> {
  const rows = await db.tenant(tenantId, (tx) =>
    tx
      .selectFrom("tenant_secrets")
      .select(["secret_name", "created_at", "updated_at"])
      .where("tenant_id", "=", tenantId)
      .where("plugin_name", "=", plugin)
      .orderBy("secret_name")
      .execute(),
  );
  return v.parse(v.array(Row), rows).map((row) => ({ name: row.secret_name, createdAt: row.created_at, updatedAt: row.updated_at }));
}

/** False: there was none. */
export async function deleteTenantSecret(db: TenantDb, tenantId: TenantId, actor: AuditActor, plugin: string, name: string): Promise<boolean> {
  return db.tenant(tenantId, async (tx) => {
    const { numDeletedRows } = await tx
      .deleteFrom("tenant_secrets")
      .where("tenant_id", "=", tenantId)
      .where("plugin_name", "=", plugin)
      .where("secret_name", "=", name)
      .executeTakeFirst();
    if (numDeletedRows === 0n) return false;
    await recordAudit(tx, tenantId, { actor, action: "secret.deleted", targetType: "secret", targetId: `${plugin}/${name}` });
    return true;
  });
}
