/**
 * The life of a plugin, for those who run the platform: `npm run plugin -- …`. What only the registry may do goes through its functions
 * (SERVICE_TOKEN, and FUNCTION_URL where they answer); whom the platform trusts is a matter of its database (DATABASE_URL).
 */
import { readFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { openDatabase, type PlatformDb } from "../shared/db/database.ts";
import { readConfig, required } from "../shared/host/config.ts";
import { functionUrl } from "../shared/host/function-url.ts";
import { parseId } from "../shared/ids.ts";
import { admissionSigner } from "../shared/registry/admission-record.ts";
import { listPublisherKeys, revokePublisherKey, trustPublisherKey } from "../shared/registry/publisher-keys.ts";
import { asCommand, Misuse, Trouble } from "./command.ts";

const USAGE = `npm run plugin -- show <name>
npm run plugin -- deprecate <name> [--sunset <time>] [--guide <url>]     at least 90 days ahead, which is also what it is unless said
npm run plugin -- restore <name>                                         takes a deprecation back, before its sunset
npm run plugin -- deregister <name> <version>                            takes a version out of routing; what is in flight finishes
npm run plugin -- trust <key's name> <public key's PEM file> [--tenant ten_…] [--expires <time>]
npm run plugin -- revoke <key's name>
npm run plugin -- keys
npm run plugin -- admission-key                                          the public half of the key that countersigns`;

const TIMEOUT_MS = 20_000;

export async function plugin(args: readonly string[], env: Record<string, string | undefined>): Promise<string> {
  const { values, positionals } = parseArgs({
    args: [...args],
    options: { sunset: { type: "string" }, guide: { type: "string" }, tenant: { type: "string" }, expires: { type: "string" } },
    allowPositionals: true,
  });
  const [verb, name = "", more = ""] = positionals;
  const config = readConfig(env);

  /** `fn` names the function that has the route. */
  const registry = async (fn: string, method: string, path: string, body?: unknown): Promise<string> => {
    const answer = await fetch(`${new URL(functionUrl(config, fn)).origin}/internal/registry/${path}`, {
      method,
      headers: { authorization: `Bearer ${required(config, "SERVICE_TOKEN")}`, ...(body === undefined ? {} : { "content-type": "application/json" }) },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    const text = await answer.text();
    if (!answer.ok) throw new Trouble(`The registry answered ${answer.status}: ${text}`);
    return text === "" ? "done" : JSON.stringify(JSON.parse(text), null, 2);
  };
  const withDatabase = async (work: (db: PlatformDb) => Promise<string>): Promise<string> => {
    const db = await openDatabase({ url: required(config, "DATABASE_URL"), driver: config.DATABASE_DRIVER, poolSize: 1 });
    return work(db).finally(() => db.close());
  };
  const at = (path: string) => encodeURIComponent(path);

  switch (verb) {
    case "show":
      return registry("registry-detail", "GET", at(name));
    case "deprecate": {
      const sunset_at = values.sunset && timeOf(values.sunset).toISOString();
      return registry("registry-lifecycle", "POST", `${at(name)}/lifecycle`, { status: "deprecated", sunset_at, migration_guide_url: values.guide });
    }
    case "restore":
      return registry("registry-lifecycle", "POST", `${at(name)}/lifecycle`, { status: "active" });
    case "deregister":
      return registry("registry-deregister", "DELETE", `${at(name)}/${at(more)}`);
    case "trust": {
      const ownerTenantId = values.tenant === undefined ? null : parseId("tenant", values.tenant);
      if (values.tenant !== undefined && ownerTenantId === null) throw new Misuse("--tenant must be an id such as ten_…");
      const key = { name, publicKey: await readFile(more, "utf8"), ownerTenantId, expiresAt: values.expires === undefined ? null : timeOf(values.expires) };
      return withDatabase(async (db) => {
        await trustPublisherKey(db, key);
        return `${name} may sign plugins${ownerTenantId === null ? " of the platform" : ` of ${values.tenant}`}.`;
      });
    }
    case "revoke":
      return withDatabase(async (db) => {
        if (!(await revokePublisherKey(db, name))) throw new Trouble(`There is no key named ${name}.`);
        return `${name} signs nothing any more. What runs goes on; take it out with deregister.`;
      });
    case "keys":
      return withDatabase(async (db) => (await listPublisherKeys(db)).map(keyLine).join("\n") || "There are none.");
    case "admission-key":
      return admissionSigner(required(config, "ADMISSION_KEY")).publicKey;
    default:
      throw new Misuse(verb === undefined ? "Say what to do." : `There is no ${verb}.`);
  }
}

function keyLine({ name, ownerTenantId, expiresAt, revokedAt }: Awaited<ReturnType<typeof listPublisherKeys>>[number]): string {
  const state = revokedAt ? `revoked ${revokedAt.toISOString()}` : expiresAt ? `until ${expiresAt.toISOString()}` : "";
  return [name, ownerTenantId ?? "platform", state].join("\t").trimEnd();
}

function timeOf(text: string): Date {
  const time = new Date(text);
  if (Number.isNaN(time.getTime())) throw new Misuse(`${text} is no time; write it as 2030-01-31T00:00:00Z`);
  return time;
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href)
  await asCommand(USAGE, async (args) => {
    console.log(await plugin(args, process.env));
    return 0;
  });
