/** Takes one safety out of a migrated database, to show that the auditor sees what it was good for. */
import pg from "pg";

export const BREAKS = {
  fence: "settle_tasks and renew_lease no longer ask for the lease: a zombie may write",
  unique: "idempotency_keys has no primary key: two submits at once with one key may both be admitted",
  replay: "llm_calls_replay and the look-up that uses it are gone: a stored answer is bought again",
} as const;
export type Break = keyof typeof BREAKS;

export const isBreak = (name: string): name is Break => name in BREAKS;

/** What each break takes out of the text of these functions. */
const CUTS: Record<Break, { functions: readonly string[]; cut: readonly (string | RegExp)[]; also: readonly string[] }> = {
  fence: { functions: ["settle_tasks", "renew_lease"], cut: [/ AND (t\.)?lease_token = (b\.|p_)lease/], also: [] },
  unique: { functions: [], cut: [], also: ["ALTER TABLE idempotency_keys DROP CONSTRAINT idempotency_keys_pkey"] },
  replay: { functions: ["begin_llm_call"], cut: [/SELECT \* INTO c FROM llm_calls[\s\S]*?END IF;/], also: ["DROP INDEX llm_calls_replay"] },
};

export async function breakDatabase(url: string, name: Break): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    for (const fn of CUTS[name].functions) {
      const { rows } = await client.query<{ text: string }>("SELECT pg_get_functiondef($1::regproc) AS text", [fn]);
      const whole = rows[0]?.text ?? "";
      const cut = CUTS[name].cut.reduce<string>((text, part) => text.replace(part, ""), whole);
      if (cut === whole) throw new Error(`${fn} has no such safety: has the migration changed?`);
      await client.query(cut);
    }
    for (const statement of CUTS[name].also) await client.query(statement);
  } finally {
    await client.end();
  }
}
