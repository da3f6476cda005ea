/** Why a version is not taken into the catalogue, apart from its signature. */

import { sql } from "kysely";
import * as v from "valibot";
import type { Tx } from "../db/database.ts";
import { Refusal } from "../errors.ts";
import { Manifest } from "../sdk/src/manifest.ts";
import { compileConfigSchema } from "./config-issues.ts";
import { checkDependencies, type DependencyGraph, findDependencyCircle } from "./refuse-dependencies.ts";

/** What is wrong with a manifest beyond its shape. Throws INVALID_INPUT. */
export function checkContract(manifest: Manifest): void {
  checkDependencies(manifest);
  checkConfigSchema(manifest);
  checkSecretScopes(manifest);
}

const DependencyRow = v.object({ name: v.string(), version: v.string(), dependencies: Manifest.entries.dependencies });

/** Throws CIRCULAR_DEPENDENCY with the path. */
export async function refuseCircle(tx: Tx, manifest: Manifest): Promise<void> {
  const path = await findCircle(tx, manifest);
  if (path) throw circularDependency(path);
}

export const circularDependency = (path: readonly string[]): Refusal =>
  new Refusal("CIRCULAR_DEPENDENCY", { message: `There is a circle: ${path.join(" → ")}.`, details: { path } });

/**
 * The circle that this version closes among those that work may come to; null: none. Only a plugin that depends on others can close one. Such
 * changes of the catalogue go one at a time until the transaction ends, else two could close it together.
 */
export async function findCircle(tx: Tx, { name, version, dependencies }: Manifest): Promise<string[] | null> {
  if (dependencies.length === 0) return null;
  await sql`SELECT FROM registry_state FOR UPDATE`.execute(tx);
  const { rows } = await sql`
    SELECT p.name, pv.version, coalesce(pv.manifest->'dependencies', '[]') AS dependencies FROM plugins p JOIN plugin_versions pv ON pv.plugin_id = p.id
    WHERE p.status IN ('active', 'deprecated') AND pv.status IN ('active', 'deprecated')`.execute(tx);
  const graph = new Map<string, Map<string, Manifest["dependencies"]>>([[name, new Map()]]);
  for (const row of v.parse(v.array(DependencyRow), rows)) graph.set(row.name, (graph.get(row.name) ?? new Map()).set(row.version, row.dependencies));
  graph.get(name)?.set(version, dependencies);
  return findDependencyCircle(graph satisfies DependencyGraph, name, version);
}

/** A scope that opens a secret which is not declared opens nothing, and its publisher would find out at run time. */
function checkSecretScopes({ required_scopes, required_secret_names }: Manifest): void {
  const stray = required_scopes.find((scope) => scope.startsWith("secrets:") && !required_secret_names.includes(scope.slice("secrets:".length)));
  if (stray) throw new Refusal("INVALID_INPUT", { message: `manifest.required_scopes: ${stray} names a secret that required_secret_names does not declare.` });
}

/** A schema that cannot be compiled would refuse every configuration, long after its publisher has gone. */
function checkConfigSchema({ config_schema }: Manifest): void {
  if (!config_schema) return;
  try {
    compileConfigSchema(config_schema);
  } catch (cause) {
    throw new Refusal("INVALID_INPUT", { message: "manifest.config_schema cannot be compiled: it is no JSON Schema, or has a pattern that RE2 does not know.", cause });
  }
}

/** A plugin of a tenant's own needs the enterprise plan; one for everybody cannot need what only one tenant has. */
export async function refuseOwner(tx: Tx, { dependencies, fallback }: Manifest, ownerTenantId: string | null): Promise<void> {
  if (ownerTenantId !== null) {
    const tenant = await tx.selectFrom("tenants").select("plan_tier").where("id", "=", ownerTenantId).executeTakeFirst();
    if (tenant?.plan_tier !== "enterprise") throw new Refusal("CONFLICT", { message: "Only a tenant on the enterprise plan has plugins of its own." });
    return;
  }
  const needed = [...dependencies.map(({ name }) => name), ...(fallback ? [fallback] : [])];
  if (needed.length === 0) return;
  const own = await tx.selectFrom("plugins").select("name").where("name", "in", needed).where("owner_tenant_id", "is not", null).executeTakeFirst();
  if (own) throw new Refusal("CONFLICT", { message: `${own.name} belongs to one tenant: a plugin for everybody can neither depend on it nor fall back to it.` });
}
