/** The offline model's message in the shape that was asked for. */
import * as v from "valibot";
import { eventsOf } from "../message-stream.ts";
import { parseJson } from "../messages-api.ts";
import type { UpstreamAnswer } from "../upstream.ts";
import { offlineMessage } from "./answer.ts";

const Streamed = v.looseObject({ stream: v.literal(true) });

export function offlineAnswer(request: Uint8Array): UpstreamAnswer {
  const message = offlineMessage(request);
  const isStreamed = v.is(Streamed, parseJson(request));
  const text = isStreamed ? [...eventsOf(message)].join("") : JSON.stringify(message);
  return {
    status: 200,
    headers: new Headers({ "content-type": isStreamed ? "text/event-stream" : "application/json", "request-id": message.id }),
    body: new Blob([text]).stream(),
  };
}
