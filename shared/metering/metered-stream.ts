/**
 * Passes a provider's event stream on, event by event and byte for byte, and reads it on the way. The event that ends a message is
 * passed on only when the call is settled: a plugin never holds a whole answer that the journal does not have.
 */
import { failpoint } from "../failpoint.ts";
import { endOfLastEvent, MessageReader } from "../models/message-stream.ts";
import { CallStopped } from "./open-calls.ts";

/** More than the longest answer; a stream that goes on for longer is broken off. */
const MAX_STREAM_BYTES = 20 * 1024 * 1024;

export interface StreamEnd {
  /** The message is whole. Returns null to pass its last event on, or what to send in its place: of an uncounted message nothing was sent yet. */
  whole(reader: MessageReader): Promise<string | null>;
  /** The stream carried an error event, which is passed on. */
  failed(reader: MessageReader): Promise<void>;
  /** It broke, or was broken off. Returns the event that says so. */
  broken(reader: MessageReader, cause: unknown): Promise<string>;
}

class StreamCutShort extends Error {
  override readonly name = "StreamCutShort";
}

/** `signal` ends the call: it must be the one that the provider's request was made with. */
export function meteredStream(provider: ReadableStream<Uint8Array>, signal: AbortSignal, end: StreamEnd): ReadableStream<Uint8Array> {
  const chunks = provider.getReader();
  const reader = new MessageReader();
  const encoder = new TextEncoder();
  let waiting = Buffer.alloc(0);
  let total = 0;
  let isOver = false;
  let breaking: Promise<void> | undefined;

  /** The next bytes that end with an event. */
  async function nextEvents(): Promise<Buffer> {
    for (;;) {
      const { done, value } = await chunks.read();
      if (done) throw new StreamCutShort("The provider's stream ended before the message was whole.");
      total += value.byteLength;
      if (total > MAX_STREAM_BYTES) throw new StreamCutShort("The provider's stream is too long.");
      waiting = Buffer.concat([waiting, value]);
      const at = endOfLastEvent(waiting);
      if (at === 0) continue;
      const events = waiting.subarray(0, at);
      waiting = waiting.subarray(at);
      return events;
    }
  }

  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        // Nobody may be reading just now; the call must be settled all the same.
        const onAbort = () => void breakOff(controller, signal.reason);
        signal.addEventListener("abort", onAbort, { once: true });
        if (signal.aborted) onAbort();
      },
      async pull(controller) {
        try {
          let events: Buffer;
          do {
            events = await nextEvents();
            FAILPOINT: await failpoint("llm.mid_stream");
            if (isOver) return;
            reader.feed(events);
          } while (reader.isUncounted && !reader.isWhole && !reader.error);
          if (!reader.isWhole && !reader.error) return controller.enqueue(events);
          isOver = true;
          const instead = reader.isWhole ? await end.whole(reader) : await end.failed(reader).then(() => null);
          controller.enqueue(instead === null ? events : encoder.encode(instead));
          controller.close();
          // The few bytes that follow the last event free the connection for the next call.
          void drain(chunks);
        } catch (error) {
          // An error while the call is being settled has nothing more to settle.
          if (isOver && !breaking) controller.error(error);
          else await breakOff(controller, error);
        }
      },
      async cancel() {
        if (isOver) return;
        isOver = true;
        const stopped = new CallStopped("hung_up");
        await chunks.cancel(stopped).catch(() => {});
        await end.broken(reader, stopped);
      },
    },
    { highWaterMark: 0 },
  );

  function breakOff(controller: ReadableStreamDefaultController<Uint8Array>, cause: unknown): Promise<void> {
    if (!isOver) breaking = sayBroken(controller, cause);
    return breaking ?? Promise.resolve();
  }

  async function sayBroken(controller: ReadableStreamDefaultController<Uint8Array>, cause: unknown): Promise<void> {
    isOver = true;
    chunks.cancel(cause).catch(() => {});
    const last = await end.broken(reader, cause);
    try {
      controller.enqueue(encoder.encode(last));
      controller.close();
    } catch {
      // The plugin went away meanwhile.
    }
  }
}

async function drain(chunks: ReadableStreamDefaultReader<Uint8Array>): Promise<void> {
  try {
    while (!(await chunks.read()).done);
  } catch {
    // The message is settled; a broken connection after it says nothing.
  }
}
