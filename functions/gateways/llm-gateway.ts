/**
 * The door to language models. It speaks the Messages API, so a plugin uses the stock client with this address and its capability
 * token; the provider's key stays here, and so do metering, the spending limit and the end of calls whose task was cancelled.
 */
import * as v from "valibot";
import { gateway } from "../../shared/host/declare.ts";
import { checkLease } from "../../shared/metering/llm-journal.ts";
import { callModel } from "../../shared/metering/model-call.ts";
import { errorResponse, errorTypeOf, parseJson } from "../../shared/models/messages-api.ts";

const Text = v.pipe(v.string(), v.minLength(1), v.maxLength(100_000));
const EmbeddingsRequest = v.looseObject({ input: v.union([Text, v.pipe(v.array(Text), v.minLength(1), v.maxLength(256))]) });

export default gateway({
  name: "llm-gateway",
  summary: "Model calls of plugins: metered, limited, replayed and cancelled.",
  audience: "llm",
  needs: ["db", "upstream", "signals", "embedder", "telemetry"],
  scale: { min: 0, max: 20, concurrency: 100 },
  // A call that is not streamed is silent until it is finished.
  timeoutSec: 600,
  maxBodyBytes: 12 * 1024 * 1024,

  routes: {
    "POST /internal/llm/v1/messages": ({ capability, request, info, db, upstream, signals, telemetry }) =>
      callModel(
        {
          capability,
          requestId: info.requestId,
          traceparent: info.traceparent,
          bodyBytes: info.bodyBytes,
          signal: AbortSignal.any([info.signal, request.signal]),
          header: (name) => info.header(name),
        },
        { db, upstream, signals, telemetry },
      ),

    // Not built: the offline model has no tokens to count, and a count is a provider call that no journal row stands for.
    "POST /internal/llm/v1/messages/count_tokens": async ({ info }) =>
      errorResponse({ status: 404, type: "not_found_error", message: "Counting tokens is not available here.", requestId: info.requestId }),

    "POST /internal/llm/v1/embeddings": async ({ capability, info, db, embedder }) => {
      const body = v.safeParse(EmbeddingsRequest, parseJson(info.bodyBytes));
      const refuse = (status: number, message: string, code: string) => errorResponse({ status, type: errorTypeOf(status), message, code, requestId: info.requestId });
      if (!body.success) return refuse(400, "input: must be a text of 1 to 100,000 characters, or 1 to 256 of them", "INVALID_INPUT");
      const lease = await checkLease(db, capability);
      if (lease !== "open") return refuse(403, "The task was cancelled, or this execution no longer holds it.", lease === "cancelled" ? "CANCELLED" : "LEASE_LOST");
      const texts = typeof body.output.input === "string" ? [body.output.input] : body.output.input;
      const vectors = await embedder.embed(texts, info.signal);
      const data = vectors.map((vector, index) => ({ object: "embedding", index, embedding: [...vector] }));
      return Response.json({ object: "list", data, model: embedder.model, usage: { prompt_tokens: 0, total_tokens: 0 } });
    },

    "GET /internal/llm/health": async ({ upstream }) => Response.json({ status: "healthy", models: upstream.live ? "live" : "offline" }),
  },

  refusal: (status, code, message, requestId) => errorResponse({ status, type: errorTypeOf(status), message, code, requestId }),
});
