/**
 * What the operator of an installation does for tenants: `npm run tenant -- <command>`, with DATABASE_URL, and REDIS_URL so that a change
 * holds for cached keys at once. A new key is printed once, alone on the standard output; everything else goes beside it.
 */

import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { sql } from "kysely";
import * as v from "valibot";
import { mintApiKey } from "../shared/access/api-key.ts";
import { recordAudit } from "../shared/access/audit-log.ts";
import { type Environment, PlanTier, SCOPES } from "../shared/access/caller.ts";
import { tellAccessChanged } from "../shared/access/key-cache.ts";
import { Role, scopesOf } from "../shared/access/roles.ts";
import { TestModels } from "../shared/access/test-models.ts";
import { Email } from "../shared/access/users.ts";
import { type Database, openDatabase, sqlState, type Tx } from "../shared/db/database.ts";
import { ConfigError, readConfig, required } from "../shared/host/config.ts";
import { asId, newId, parseId, publicId, type TenantId, type UserId } from "../shared/ids.ts";
import { type Moved, moveSubscriptions } from "../shared/metering/subscriptions.ts";
import { connectRedis } from "../shared/redis/connect.ts";

const USAGE = `npm run tenant -- <command>

  create --name <name> --owner-email <address> [--tier starter|professional|enterprise]
                                        a tenant with its owner, whose key is printed once
  list                                  tenants, oldest first
  set-tier --tenant <id> --tier <tier>
                                        its subscriptions go on under the new tier, with its quotas and prices from today
  set --tenant <id> [--rate-per-tenant <n>] [--rate-per-plugin <n>] [--test-models offline|live] [--artifact-days <n>]
                                        requests a minute (0: the tier's own); the models of test keys; days that files
                                        are kept, 1 to 395 (0: the platform's 90)
  owner-key --tenant <id> --email <address> [--expires-at <time>]
                                        a new key for an owner who has none left; makes the user where there is none

A key is the only line on the standard output.
`;

class Mistake extends Error {
  override readonly name = "Mistake";
}

const Count = v.pipe(v.string(), v.regex(/^\d{1,9}$/, "must be a whole number"), v.transform(Number));
const Name = v.pipe(v.string(), v.trim(), v.minLength(1, "must not be empty"), v.maxLength(200, "must have at most 200 characters"));
const Time = v.pipe(
  v.string(),
  v.isoTimestamp("must be a time such as 2027-01-31T12:00:00Z"),
  v.transform((text) => new Date(text)),
);
const TenantRef = v.pipe(
  v.string(),
  v.transform((text) => parseId("tenant", text)),
  v.nonNullable(
    v.custom<TenantId>((id) => id !== null),
    "must be a tenant's id, as `list` shows it",
  ),
);

const CHOICES: Readonly<Record<string, string>> = { tier: "starter, professional or enterprise", "test-models": "offline or live" };

function option<S extends v.GenericSchema>(values: Record<string, unknown>, name: string, schema: S): v.InferOutput<S> {
  const parsed = v.safeParse(schema, values[name]);
  if (parsed.success) return parsed.output;
  const choice = CHOICES[name];
  if (choice && values[name] !== undefined) throw new Mistake(`--${name} must be ${choice}.`);
  throw new Mistake(values[name] === undefined ? `--${name} is missing.` : `--${name} ${parsed.issues[0].message}.`);
}

export interface Terminal {
  /** The standard output. */
  result(line: string): void;
  say(line: string): void;
}

/** Runs one command and says how the process ends. */
export async function tenantCommand(argv: readonly string[], env: Record<string, string | undefined>, { result, say }: Terminal): Promise<0 | 1> {
  const text = { type: "string" } as const;
  try {
    const { values, positionals } = parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: {
        name: text,
        tier: text,
        "owner-email": text,
        email: text,
        tenant: text,
        "rate-per-tenant": text,
        "rate-per-plugin": text,
        "test-models": text,
        "artifact-days": text,
        "expires-at": text,
        help: { type: "boolean", short: "h" },
      },
    });
    const [command, ...rest] = positionals;
    if (values.help || command === undefined || command === "help") {
      say(USAGE);
      return command === undefined && !values.help ? 1 : 0;
    }
    const run = COMMANDS[command];
    if (!run || rest.length > 0) throw new Mistake(`There is no command ${positionals.join(" ")}; see \`npm run tenant -- help\`.`);
    const config = readConfig(env);
    const db = await openDatabase({ url: required(config, "DATABASE_URL"), driver: config.DATABASE_DRIVER, poolSize: 1 });
    try {
      const done = await run(db, values);
      if (done.changed) await tell(done.changed, config.REDIS_URL, db, say);
      for (const line of done.said) say(line);
      if (done.result !== undefined) result(done.result);
      return 0;
    } finally {
      await db.close();
    }
  } catch (error) {
    say(explain(error));
    return 1;
  }
}

/** A mistake in one sentence; what is not the operator's doing, with its name. */
function explain(error: unknown): string {
  if (error instanceof Mistake || error instanceof ConfigError || (error instanceof TypeError && "code" in error)) return error.message;
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
  if (sqlState(cause) === "42P01") return "The database has no tables yet; run `npm run migrate` first.";
  return `The command failed: ${cause instanceof Error ? cause.message || cause.name : String(cause)}`;
}

/** Cached keys live on for five minutes at most; with Redis at hand they are told now. */
async function tell(tenantId: TenantId, redisUrl: string | undefined, db: Database, say: (line: string) => void): Promise<void> {
  const late = "Keys that are in use may see it up to a minute later, when key-upkeep tells the cache.";
  if (!redisUrl) return say(late);
  const redis = connectRedis(redisUrl);
  try {
    if (redis.status !== "ready") await new Promise((resolve, reject) => void redis.once("ready", resolve).once("error", reject));
    const { access_generation } = await db.platform((tx) => tx.selectFrom("tenants").select("access_generation").where("id", "=", tenantId).executeTakeFirstOrThrow());
    await tellAccessChanged(redis, tenantId, access_generation);
  } catch {
    say(late);
  } finally {
    redis.disconnect();
  }
}

interface Done {
  said: string[];
  result?: string;
  /** A tenant whose cached keys must be read anew. */
  changed?: TenantId;
}
type Values = Record<string, unknown>;

const COMMANDS: Readonly<Record<string, (db: Database, values: Values) => Promise<Done>>> = {
  async create(db, values) {
    const name = option(values, "name", Name);
    const tier = option(values, "tier", v.optional(PlanTier, "starter"));
    const email = option(values, "owner-email", Email);
    const tenantId = newId("tenant");
    return db.platform(async (tx) => {
      // Two who run this at once with one name: the second waits, and sees the first's.
      await sql`SELECT pg_advisory_xact_lock(hashtext('aau tenant create'))`.execute(tx);
      if (await tx.selectFrom("tenants").select("id").where("name", "=", name).executeTakeFirst())
        throw new Mistake(`A tenant named ${name} is there already; see \`npm run tenant -- list\`.`);
      await tx.insertInto("tenants").values({ id: tenantId, name, plan_tier: tier, settings: "{}" }).execute();
      await recordAudit(tx, tenantId, { actor: "operator", action: "tenant.created", targetType: "tenant", targetId: publicId("tenant", tenantId), details: { tier } });
      const userId = await insertOwner(tx, tenantId, email);
      const { key, keyId } = await insertOwnersKey(tx, tenantId, userId, null);
      return {
        said: [
          `Tenant ${publicId("tenant", tenantId)} (${tier}) with the owner ${publicId("user", userId)}.`,
          `The owner's key ${publicId("key", keyId)} is below. It is not stored and will not be shown again.`,
        ],
        result: key,
      };
    });
  },

  async list(db) {
    const rows = await db.platform((tx) =>
      tx
        .selectFrom("tenants as t")
        .select(["t.id", "t.name", "t.plan_tier", "t.created_at", "t.settings"])
        .select((is) => is.selectFrom("users as u").select(is.fn.countAll<string>().as("n")).whereRef("u.tenant_id", "=", "t.id").as("users"))
        .orderBy("t.id")
        .execute(),
    );
    const lines = v
      .parse(v.array(Listed), rows)
      .map((row) =>
        [publicId("tenant", row.id), row.plan_tier, `${row.users} users`, row.created_at.toISOString().slice(0, 10), JSON.stringify(row.settings), row.name].join("  "),
      );
    return { said: lines.length === 0 ? ["There are no tenants yet."] : lines };
  },

  async "set-tier"(db, values) {
    const tenantId = option(values, "tenant", TenantRef);
    const tier = option(values, "tier", PlanTier);
    return db.platform(async (tx) => {
      const known = await findTenant(tx, tenantId);
      if (known.plan_tier === tier) return { said: [`The tenant is on ${tier} already.`] };
      await tx.updateTable("tenants").set({ plan_tier: tier }).where("id", "=", tenantId).execute();
      const moved = await moveSubscriptions(tx, tenantId, tier, "operator");
      if (moved.outcome !== "moved") throw new Mistake(whyNotMoved(moved, tier));
      await recordAudit(tx, tenantId, {
        actor: "operator",
        action: "tenant.tier_set",
        targetType: "tenant",
        targetId: publicId("tenant", tenantId),
        details: { from: known.plan_tier, to: tier },
      });
      const said = [`The tenant is on ${tier}; it was on ${known.plan_tier}.`];
      if (moved.plugins.length > 0) said.push(`Its subscriptions go on under ${tier}: ${moved.plugins.join(", ")}.`);
      return { said, changed: tenantId };
    });
  },

  async set(db, values) {
    const tenantId = option(values, "tenant", TenantRef);
    const perTenant = option(values, "rate-per-tenant", v.optional(Count));
    const perPlugin = option(values, "rate-per-plugin", v.optional(Count));
    const testModels = option(values, "test-models", v.optional(TestModels));
    const days = option(values, "artifact-days", v.optional(v.pipe(Count, v.maxValue(395, "must be at most 395"))));
    if ([perTenant, perPlugin, testModels, days].every((given) => given === undefined))
      throw new Mistake("Nothing to set: give --rate-per-tenant, --rate-per-plugin, --test-models or --artifact-days.");
    return db.platform(async (tx) => {
      const known = v.parse(Settings, (await findTenant(tx, tenantId)).settings);
      const limits = { ...known.rate_limits, ...(perTenant !== undefined && { per_tenant: perTenant }), ...(perPlugin !== undefined && { per_plugin: perPlugin }) };
      const settings = {
        ...known,
        rate_limits: Object.fromEntries(Object.entries(limits).filter(([, limit]) => limit !== 0)),
        ...(testModels && { test_models: testModels }),
        ...(days !== undefined && { retention: days === 0 ? {} : { artifact_days: days } }),
      };
      await tx
        .updateTable("tenants")
        .set({ settings: JSON.stringify(settings) })
        .where("id", "=", tenantId)
        .execute();
      await recordAudit(tx, tenantId, {
        actor: "operator",
        action: "tenant.settings_set",
        targetType: "tenant",
        targetId: publicId("tenant", tenantId),
        details: { rate_per_tenant: perTenant ?? null, rate_per_plugin: perPlugin ?? null, test_models: testModels ?? null, artifact_days: days ?? null },
      });
      return { said: [`Settings: ${JSON.stringify(settings)}`], changed: tenantId };
    });
  },

  async "owner-key"(db, values) {
    const tenantId = option(values, "tenant", TenantRef);
    const email = option(values, "email", Email);
    const expiresAt = option(values, "expires-at", v.optional(Time)) ?? null;
    if (expiresAt && expiresAt.getTime() <= Date.now()) throw new Mistake("--expires-at must be in the future.");
    return db.platform(async (tx) => {
      await findTenant(tx, tenantId);
      const user = await tx.selectFrom("users").select(["id", "role"]).where("tenant_id", "=", tenantId).where(sql`lower(email)`, "=", email.toLowerCase()).executeTakeFirst();
      if (user && user.role !== "owner") throw new Mistake(`This user is ${v.parse(Role, user.role)}, not owner; an owner of the tenant can change that.`);
      const userId = user ? asId("user", user.id) : await insertOwner(tx, tenantId, email);
      const { key, keyId } = await insertOwnersKey(tx, tenantId, userId, expiresAt);
      return { said: [`The key ${publicId("key", keyId)} of the owner ${publicId("user", userId)} is below. It is not stored and will not be shown again.`], result: key };
    });
  },
};

const Listed = v.object({ id: v.string(), name: v.string(), plan_tier: v.string(), users: v.string(), created_at: v.date(), settings: v.unknown() });
const Settings = v.looseObject({ rate_limits: v.optional(v.record(v.string(), v.number()), {}) });

function whyNotMoved({ outcome, names, included }: Extract<Moved, { names: string[] }>, tier: PlanTier): string {
  if (outcome === "own_plugins") return `Plugins that are the tenant's own are not part of ${tier}. End first: ${names.join(", ")}.`;
  const over = names.length - (included ?? 0);
  return `The tenant has subscribed to ${names.length} plugins, and ${tier} includes ${included}. End first ${over === 1 ? "one" : over} of: ${names.join(", ")}.`;
}

/** Held until the transaction ends, so that two changes of settings do not undo each other. */
async function findTenant(tx: Tx, tenantId: TenantId): Promise<{ plan_tier: string; settings: unknown }> {
  const row = await tx.selectFrom("tenants").select(["plan_tier", "settings"]).where("id", "=", tenantId).forNoKeyUpdate().executeTakeFirst();
  if (!row) throw new Mistake("There is no such tenant; see `npm run tenant -- list`.");
  return row;
}

async function insertOwner(tx: Tx, tenantId: TenantId, email: string): Promise<UserId> {
  const id = newId("user");
  await tx.insertInto("users").values({ id, tenant_id: tenantId, email, role: "owner" }).execute();
  await recordAudit(tx, tenantId, { actor: "operator", action: "user.created", targetType: "user", targetId: publicId("user", id), details: { role: "owner" } });
  return id;
}

async function insertOwnersKey(tx: Tx, tenantId: TenantId, userId: UserId, expiresAt: Date | null) {
  const environment: Environment = "live";
  const minted = mintApiKey(environment);
  const keyId = newId("key");
  await tx
    .insertInto("api_keys")
    .values({
      id: keyId,
      tenant_id: tenantId,
      user_id: userId,
      key_hash: minted.hash,
      key_prefix: minted.prefix,
      environment,
      scopes: [...scopesOf("owner")],
      description: "made by the operator",
      expires_at: expiresAt,
      revoked_at: null,
      rotated_to: null,
      last_used_at: null,
    })
    .execute();
  await recordAudit(tx, tenantId, {
    actor: "operator",
    action: "key.created",
    targetType: "key",
    targetId: publicId("key", keyId),
    details: { environment, scopes: SCOPES, user: publicId("user", userId) },
  });
  return { key: minted.plaintext, keyId };
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href)
  process.exitCode = await tenantCommand(process.argv.slice(2), process.env, { result: (line) => console.log(line), say: (line) => console.error(line) });
