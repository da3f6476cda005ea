import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { appendReport, checkLease, readOwnArtifact, requireScope, storeArtifact } from "../../shared/execution/scoped-access.ts";
import { gateway } from "../../shared/host/declare.ts";
import { parseJson, readJson } from "../../shared/host/request-body.ts";
import { asId, publicId } from "../../shared/ids.ts";
import { putDocument } from "../../shared/knowledge/put-document.ts";
import { retrieveKnowledge } from "../../shared/knowledge/retrieve.ts";
import { KnowledgeQuestion, NewKnowledge } from "../../shared/sdk/src/scoped-knowledge.ts";
import { NewTickets, TicketChange, TicketFilter, TicketId } from "../../shared/sdk/src/tickets.ts";
import { ArtifactName } from "../../shared/storage/artifact-name.ts";
import { changeTicket, createTickets } from "../../shared/tickets/file-tickets.ts";
import { findTicket, listTickets } from "../../shared/tickets/read-tickets.ts";

const Report = v.strictObject({ node: v.pipe(v.string(), v.maxLength(100)), message: v.pipe(v.string(), v.maxLength(500)) });

const NO_TICKET = { message: "There is no such ticket." };

/** `T-12` is number 12. */
function ticketNumber(id: string | undefined): number {
  if (!v.is(TicketId, id)) throw new Refusal("NOT_FOUND", NO_TICKET);
  return Number(id.slice(2));
}

/** What a plugin may touch besides models: its own artifacts, the tenant's tickets and documents, its task's progress, and the word that it was cancelled. */
export default gateway({
  name: "scope-gateway",
  summary: "Artifacts, tickets, knowledge, progress and the cancel flag for plugins, checked against their scopes.",
  audience: "scoped",
  needs: ["db", "storage", "signals", "ring", "embedder", "telemetry"],
  scale: { min: 0, max: 10, concurrency: 80 },
  maxBodyBytes: 25 * 1024 * 1024,
  routes: {
    "PUT /internal/scoped/artifacts/{name}": async ({ capability, params, request, info, db, storage, telemetry }) => {
      requireScope(capability, "store:write");
      const name = v.safeParse(ArtifactName, params.name);
      if (!name.success) throw new Refusal("INVALID_INPUT", { message: name.issues[0].message });
      const mediaType = request.headers.get("content-type") ?? "application/octet-stream";
      const { ref, isDelayed } = await storeArtifact({ db, storage, telemetry }, capability, { name: name.output, mediaType, bytes: info.bodyBytes });
      return Response.json(ref, { status: 201, headers: isDelayed ? { "aau-artifact": "delayed" } : {} });
    },

    "GET /internal/scoped/artifacts/{name}": async ({ capability, params, db, storage }) => {
      requireScope(capability, "store:read");
      const name = v.safeParse(ArtifactName, params.name);
      const found = name.success ? await readOwnArtifact({ db, storage }, capability, name.output) : null;
      if (!found) throw new Refusal("NOT_FOUND", { message: "This plugin has stored no such artifact for this task." });
      return new Response(new Uint8Array(found.bytes), { headers: { "content-type": found.mediaType } });
    },

    "POST /internal/scoped/tickets": async ({ capability, info, db }) => {
      requireScope(capability, "tickets:write");
      const filed = await createTickets(db, capability, readJson(NewTickets, info.bodyBytes));
      return Response.json({ tickets: filed });
    },

    "GET /internal/scoped/tickets": async ({ capability, request, db }) => {
      requireScope(capability, "tickets:read");
      const filter = new URL(request.url).searchParams.get("filter") ?? "{}";
      const wanted = readJson(TicketFilter, new TextEncoder().encode(filter));
      const tenantId = asId("tenant", capability.tenant);
      await checkLease(db, tenantId, capability);
      return Response.json(await listTickets(db, tenantId, wanted));
    },

    "GET /internal/scoped/tickets/{id}": async ({ capability, params, db }) => {
      requireScope(capability, "tickets:read");
      const tenantId = asId("tenant", capability.tenant);
      await checkLease(db, tenantId, capability);
      const found = await findTicket(db, tenantId, ticketNumber(params.id));
      if (!found) throw new Refusal("NOT_FOUND", NO_TICKET);
      return Response.json(found);
    },

    "PATCH /internal/scoped/tickets/{id}": async ({ capability, params, info, db }) => {
      requireScope(capability, "tickets:write");
      const changed = await changeTicket(db, capability, ticketNumber(params.id), readJson(TicketChange, info.bodyBytes));
      if (!changed) throw new Refusal("NOT_FOUND", NO_TICKET);
      return Response.json(changed);
    },

    "POST /internal/scoped/knowledge/search": async ({ capability, info, db, embedder }) => {
      requireScope(capability, "knowledge:read");
      const { query, limit } = readJson(KnowledgeQuestion, info.bodyBytes);
      const tenantId = asId("tenant", capability.tenant);
      await checkLease(db, tenantId, capability);
      const passages = await retrieveKnowledge({ db, embedder }, tenantId, { text: query, vector: null }).catch((cause: unknown) => {
        if (cause instanceof Refusal) throw cause;
        throw new Refusal("SERVICE_UNAVAILABLE", { message: "The question could not be embedded.", retryAfterSec: 2, cause });
      });
      return Response.json({ passages: passages.slice(0, limit) });
    },

    "POST /internal/scoped/knowledge": async ({ capability, info, db, ring }) => {
      requireScope(capability, "knowledge:write");
      const { content, media_type, source_url } = readJson(NewKnowledge, info.bodyBytes);
      const tenantId = asId("tenant", capability.tenant);
      await checkLease(db, tenantId, capability);
      const { id, status } = await putDocument(db, tenantId, { content, mediaType: media_type, sourceUrl: source_url });
      // Redis away: the row says that it is due, and `wake` rings.
      if (status === "queued") await ring.document(id, info.traceparent);
      return Response.json({ document_id: publicId("document", id), status }, { status: 202 });
    },

    "POST /internal/scoped/progress": async ({ capability, info, db, signals }) => {
      const report = v.safeParse(Report, parseJson(info.bodyBytes));
      if (!report.success) throw new Refusal("INVALID_INPUT", { message: "A report is {node, message}." });
      const cancelRequested = await appendReport(db, capability, report.output);
      await signals.taskProgressed(capability.task);
      return Response.json({ cancel_requested: cancelRequested });
    },

    "GET /internal/scoped/cancel": async ({ capability, db, signals }) => {
      const flagged = await signals.isCancelRequested(capability.task);
      return Response.json({ cancel_requested: flagged || (await checkLease(db, asId("tenant", capability.tenant), capability)).cancelRequested });
    },
  },
});
