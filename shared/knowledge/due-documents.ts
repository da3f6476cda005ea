import * as v from "valibot";
import type { PlatformDb } from "../db/database.ts";
import { asId, type DocumentId } from "../ids.ts";

const Due = v.object({ id: v.string() });

/** Documents that nobody has heard of, that are to be tried again, or whose vectors another model made. */
export async function takeDueDocuments(db: PlatformDb, model: string, limit: number): Promise<DocumentId[]> {
  const rows = await db.call("SELECT * FROM take_due_documents($1, $2)", [limit, model]);
  return v.parse(v.array(Due), rows).map(({ id }) => asId("document", id));
}
