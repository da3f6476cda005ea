import * as v from "valibot";
import type { PlatformDb } from "../db/database.ts";
import type { TenantId } from "../ids.ts";

/** Which models the work of a tenant's test keys gets: nobody pays for it, so it costs nothing unless the operator says so. */
export const TestModels = v.picklist(["offline", "live"]);
const Settings = v.object({ test_models: TestModels });

/** What the tenant's settings say; offline where they say nothing. */
export async function testModelsOf(db: PlatformDb, tenantId: TenantId): Promise<v.InferOutput<typeof TestModels>> {
  const row = await db.platform((tx) => tx.selectFrom("tenants").select("settings").where("id", "=", tenantId).executeTakeFirst());
  const settings = v.safeParse(Settings, row?.settings);
  return settings.success ? settings.output.test_models : "offline";
}
