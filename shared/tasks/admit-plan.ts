/** Admission of a task with several steps: one statement of its own (`admit_plan`). */
import * as v from "valibot";
import type { TenantDb } from "../db/database.ts";
import { AdmitRow, type Admittee } from "./admit-batch.ts";

/** An error leaves it open whether the task was admitted. */
export async function admitPlan(db: TenantDb, { plan, input, ...rest }: Admittee): Promise<AdmitRow> {
  const task = `${JSON.stringify(rest).slice(0, -1)},"plan":${plan},"input":${input}}`;
  const [row] = await db.call("SELECT * FROM admit_plan($1)", [task]);
  return v.parse(AdmitRow, row);
}
