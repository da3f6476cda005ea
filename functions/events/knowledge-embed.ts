import * as v from "valibot";
import { event } from "../../shared/host/declare.ts";
import { idParam } from "../../shared/ids.ts";
import { embedDocument } from "../../shared/knowledge/embed-document.ts";

/** Cuts a document into passages, embeds them, and lets them be found. Any number of wake-ups for one document leave one set of passages. */
export default event({
  name: "knowledge-embed",
  summary: "Cut a document into passages and embed them.",
  event: "io.aau.document.added",
  stream: "stream:knowledge",
  data: v.object({ document_id: idParam("document") }),
  needs: ["db", "platformDb", "embedder", "telemetry"],
  scale: { min: 0, max: 10, concurrency: 4 },
  timeoutSec: 600,
  memoryMib: 512,

  handle({ data, signal, ...parts }) {
    return embedDocument(parts, data.document_id, signal);
  },
});
