/** The envelopes that the platform speaks, as JSON Schema generated from the SDK's own schemas, in the table `envelope_schemas`. */
import { type JsonSchema, toJsonSchema } from "@valibot/to-json-schema";
import pg from "pg";
import { CURRENT_ENVELOPE_VERSION, ENVELOPE_VERSIONS, type EnvelopeVersion } from "../shared/sdk/src/envelope-versions.ts";
import { InputEnvelope, OutputEnvelope } from "../shared/sdk/src/envelopes.ts";
import { InputEnvelope2, OutputEnvelope2 } from "../shared/sdk/src/envelopes-2.ts";

const SCHEMAS = {
  "1.0": { input: InputEnvelope, output: OutputEnvelope },
  "2.0": { input: InputEnvelope2, output: OutputEnvelope2 },
} as const satisfies Record<EnvelopeVersion, object>;

export interface PublishedSchema {
  version: EnvelopeVersion;
  message: "input" | "output";
  is_current: boolean;
  schema: JsonSchema;
}

/** What a sender must write; what a reader may rely on follows from it. */
export function envelopeSchemas(): PublishedSchema[] {
  return ENVELOPE_VERSIONS.flatMap((version) =>
    (["input", "output"] as const).map((message) => ({
      version,
      message,
      is_current: version === CURRENT_ENVELOPE_VERSION,
      schema: toJsonSchema(SCHEMAS[version][message], { typeMode: "input", errorMode: "ignore" }),
    })),
  );
}

/** Writes what changed, and takes away what is no longer spoken. */
export async function publishEnvelopeSchemas(databaseUrl: string): Promise<void> {
  const client = new pg.Client({ connectionString: databaseUrl, connectionTimeoutMillis: 10_000, query_timeout: 10_000 });
  await client.connect();
  try {
    await client.query(
      `WITH spoken AS (SELECT * FROM jsonb_to_recordset($1) AS s(version text, message text, is_current boolean, schema jsonb)),
         gone AS (DELETE FROM envelope_schemas e WHERE NOT EXISTS (SELECT FROM spoken s WHERE (s.version, s.message) = (e.version, e.message)))
       INSERT INTO envelope_schemas AS e (version, message, is_current, schema) SELECT version, message, is_current, schema FROM spoken
       ON CONFLICT (version, message) DO UPDATE SET is_current = EXCLUDED.is_current, schema = EXCLUDED.schema, updated_at = now()
         WHERE (e.is_current, e.schema) IS DISTINCT FROM (EXCLUDED.is_current, EXCLUDED.schema)`,
      [JSON.stringify(envelopeSchemas())],
    );
  } finally {
    await client.end();
  }
}
