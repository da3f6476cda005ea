import { ReadableStream } from "node:stream/web";
import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { http } from "../../shared/host/declare.ts";
import { idParam, publicId } from "../../shared/ids.ts";
import { exportUser, noteExport } from "../../shared/privacy/export-user.ts";
import { GUARD, mayActFor } from "../../shared/privacy/may-act-for.ts";

/** Everything that is known of a user, as one JSON document. */
export default http({
  name: "data-export",
  summary: "Download everything that is known of a user.",
  route: "GET /v1/gdpr/export",
  scope: "any",
  needs: ["db", "clock"],
  query: v.strictObject({ user_id: idParam("user") }),
  replies: { 200: null },
  documented: { guard: GUARD, refusals: ["NOT_FOUND"], produces: "application/json" },
  scale: { min: 0, max: 3, concurrency: 10 },
  timeoutSec: 600,
  memoryMib: 512,

  async handle({ query, caller, db, clock }) {
    mayActFor(caller, query.user_id);
    if (!(await noteExport(db, caller.tenantId, query.user_id, caller))) throw new Refusal("NOT_FOUND", { message: "There is no such user." });
    const text = ReadableStream.from(exportUser(db, caller.tenantId, query.user_id, clock())).pipeThrough(new TextEncoderStream());
    const headers = { "content-type": "application/json; charset=utf-8", "content-disposition": `attachment; filename="${publicId("user", query.user_id)}.json"` };
    return { status: 200, raw: text, headers };
  },
});
