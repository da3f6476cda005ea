/**
 * Reads every tenant's audit log through and checks its chain: `npm run audit:verify`, with DATABASE_URL of any role that may read all tenants.
 * 1 when a row was changed, is missing, or stands in another's place.
 *
 * Whoever owns the database could write a whole new chain. `--heads <file>` keeps where each chain stood, for a place that they do not own: the
 * next run checks that the chains still pass through there, and writes the new heads.
 */
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import * as v from "valibot";
import { type Heads, verifyAuditLogs } from "../shared/access/verify-audit.ts";
import { openDatabase } from "../shared/db/database.ts";
import { readConfig, required } from "../shared/host/config.ts";
import { asCommand } from "./command.ts";

const USAGE = `npm run audit:verify -- [--heads <file>]

Reads every tenant's audit log through. It needs DATABASE_URL of a role that may read all tenants.

  --heads <file>   checks that the chains still pass through where they stood, and writes where they stand now`;

const HeadsFile = v.record(v.string(), v.strictObject({ seq: v.pipe(v.number(), v.safeInteger()), hash: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)) }));

export async function verifyAudit(argv: readonly string[], env: Record<string, string | undefined>, say: (line: string) => void): Promise<0 | 1> {
  const { values } = parseArgs({ args: [...argv], options: { heads: { type: "string" } } });
  const config = readConfig(env);
  const db = await openDatabase({ url: required(config, "DATABASE_URL"), driver: config.DATABASE_DRIVER, poolSize: 1 });
  try {
    const known: Heads = values.heads && existsSync(values.heads) ? v.parse(HeadsFile, JSON.parse(readFileSync(values.heads, "utf8"))) : {};
    const { heads, broken, entries } = await verifyAuditLogs(db, known);
    for (const { tenant, seq, problem } of broken) say(`${tenant}: entry ${seq} ${problem}`);
    say(`${entries} entries of ${Object.keys(heads).length} tenants read, ${broken.length} chains broken.`);
    if (broken.length > 0) return 1;
    if (values.heads) {
      writeFileSync(`${values.heads}.new`, `${JSON.stringify(heads, null, 2)}\n`);
      renameSync(`${values.heads}.new`, values.heads);
    }
    return 0;
  } finally {
    await db.close();
  }
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) await asCommand(USAGE, (args) => verifyAudit(args, process.env, console.log));
