/** The records of what stands around a task: what receivers of webhooks heard, invoices, where marks of tenants turned up, and what is left of the erased. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { GetObjectCommand, ListObjectsV2Command, S3Client } from "@aws-sdk/client-s3";
import type pg from "pg";
import * as v from "valibot";
import type { Invariant } from "./invariants.ts";

/** Every command of a run carries its job's marker like this; whatever is made of it does too. */
const MARK = /\[mark ([\w-]+)\]/g;
export const marksIn = (text: string): string[] => [...new Set([...text.matchAll(MARK)].map(([, marker = ""]) => marker))];

/** A request that reached a receiver. */
export const Heard = v.object({
  at: v.number(),
  endpoint: v.string(),
  webhook_id: v.string(),
  /** Of the signature, in seconds. */
  timestamp: v.number(),
  is_valid: v.boolean(),
  type: v.string(),
  /** The public id of the task or the invoice that it tells of. */
  subject: v.nullable(v.string()),
  marks: v.array(v.string()),
  is_accepted: v.boolean(),
});
export type Heard = v.InferOutput<typeof Heard>;

export interface EndpointRecord {
  id: string;
  tenantId: string;
  isHealthy: boolean;
  /** What ended before nobody had to tell it. */
  since: Date;
}

const count = v.pipe(v.union([v.string(), v.number()]), v.transform(Number), v.safeInteger());
const Invoice = v.object({ id: v.string(), tenant_id: v.string(), number: v.number(), month: v.string(), total: count });
const InvoiceLine = v.object({ invoice_id: v.string(), tenant_id: v.string(), kind: v.string(), origin: v.string(), quantity: count, amount: count });
const UsageDay = v.object({ tenant_id: v.string(), month: v.string(), is_invoiced: v.boolean(), billable: count, cost: count });
const Billable = v.object({ tenant_id: v.string(), month: v.string(), billable: count, cost: count });
const Closed = v.object({ tenant_id: v.string(), until: v.string() });

/** Something that a scenario saw from outside. */
export interface Fact {
  invariant: Invariant;
  what: string;
  isSo: boolean;
}

export interface Erased {
  who: string;
  isCertified: boolean;
  /** How many of the marks stood somewhere before; a search that finds nothing there either says nothing. */
  foundBefore: number;
  /** Where what was left of the person is found, by place. */
  found: Readonly<Record<string, number>>;
}

export interface Around {
  heard: Heard[];
  endpoints: EndpointRecord[];
  invoices: v.InferOutput<typeof Invoice>[];
  lines: v.InferOutput<typeof InvoiceLine>[];
  usageDays: v.InferOutput<typeof UsageDay>[];
  billable: v.InferOutput<typeof Billable>[];
  /** The first month that is not closed, by tenant. */
  closed: v.InferOutput<typeof Closed>[];
  /** Marks in one prompt of the provider's. */
  prompts: { call: number; marks: string[] }[];
  /** Marks in objects of the store, by key. */
  objects: { key: string; marks: string[] }[];
  /** Marks in logs, by file. */
  logs: { file: string; marks: string[] }[];
  erased: Erased[];
  facts: Fact[];
}

const QUERIES = {
  invoices: "SELECT id, tenant_id, number, to_char(period_start, 'YYYY-MM') AS month, total_micro_usd AS total FROM invoices",
  lines: "SELECT invoice_id, tenant_id, kind, to_char(origin, 'YYYY-MM') AS origin, quantity, amount_micro_usd AS amount FROM invoice_lines",
  usageDays: `SELECT tenant_id, to_char(day, 'YYYY-MM') AS month, invoice_id IS NOT NULL AS is_invoiced, sum(billable) AS billable, sum(cost_micro_usd) AS cost
    FROM usage_days GROUP BY 1, 2, 3`,
  billable: `SELECT tenant_id, to_char(timestamp AT TIME ZONE 'UTC', 'YYYY-MM') AS month, count(*) AS billable, sum(cost_micro_usd) AS cost FROM execution_events WHERE billable GROUP BY 1, 2`,
  closed: "SELECT tenant_id, to_char(closed_until, 'YYYY-MM') AS until FROM tenant_billing",
} as const;

export async function readBooks(client: pg.Client): Promise<Pick<Around, keyof typeof QUERIES>> {
  const read = async <S extends v.GenericSchema>(schema: S, text: string) => v.parse(v.array(schema), (await client.query(text)).rows);
  return {
    invoices: await read(Invoice, QUERIES.invoices),
    lines: await read(InvoiceLine, QUERIES.lines),
    usageDays: await read(UsageDay, QUERIES.usageDays),
    billable: await read(Billable, QUERIES.billable),
    closed: await read(Closed, QUERIES.closed),
  };
}

export function readLogs(folder: string): Around["logs"] {
  return readdirSync(folder)
    .filter((file) => file.endsWith(".log"))
    .map((file) => ({ file, marks: marksIn(readFileSync(join(folder, file), "utf8")) }));
}

const OBJECTS_AT_ONCE = 16;

/** Sizes by key, and whose marks stand in them. */
export async function readObjects({ endpoint, bucket }: { endpoint: string; bucket: string }): Promise<{ sizes: Map<string, number>; marked: Around["objects"] }> {
  const s3 = new S3Client({ region: "us-east-1", endpoint, forcePathStyle: true, credentials: { accessKeyId: "test", secretAccessKey: "test" } });
  const sizes = new Map<string, number>();
  const marked: Around["objects"] = [];
  try {
    let after: string | undefined;
    do {
      const page = await s3.send(new ListObjectsV2Command({ Bucket: bucket, ContinuationToken: after }));
      for (const { Key, Size } of page.Contents ?? []) if (Key !== undefined) sizes.set(Key, Size ?? 0);
      after = page.NextContinuationToken;
    } while (after !== undefined);
    const keys = [...sizes.keys()];
    const read = async () => {
      for (let key = keys.pop(); key !== undefined; key = keys.pop()) {
        const { Body } = await s3.send(new GetObjectCommand({ Bucket: bucket, Key: key }));
        marked.push({ key, marks: marksIn((await Body?.transformToString()) ?? "") });
      }
    };
    await Promise.all(Array.from({ length: OBJECTS_AT_ONCE }, read));
    return { sizes, marked };
  } finally {
    s3.destroy();
  }
}
