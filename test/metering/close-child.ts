/** Closes what is over and ends, as the cron function's process does; AAU_FP may end it sooner. */
import { openDatabase } from "../../shared/db/database.ts";
import { installFailpoints } from "../../shared/host/install-failpoints.ts";
import { closeMonth } from "../../shared/metering/close-months.ts";

installFailpoints(process.env.AAU_FP);
const [tenantId = "", month = ""] = process.argv.slice(2);
const db = await openDatabase({ url: process.env.DATABASE_URL ?? "", driver: "pg", poolSize: 1 });
const closed = await closeMonth(db, tenantId, month);
console.log(closed?.outcome);
await db.close();
