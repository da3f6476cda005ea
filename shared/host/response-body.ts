/** A request is in flight until the last byte of its answer is out: a stream that is cut off by a stopping process would be lost work. */

const STREAMED = /^(text\/event-stream|application\/x-ndjson)/;

/** The response, with `onEnd` called once: now, or when its stream has been read, broken or given up. */
export function finishWithBody(response: Response, onEnd: () => void): Response {
  if (!response.body || !STREAMED.test(response.headers.get("content-type") ?? "")) {
    onEnd();
    return response;
  }
  return new Response(watched(response.body, onEnd), response);
}

function watched(body: ReadableStream<Uint8Array>, onEnd: () => void): ReadableStream<Uint8Array> {
  const reader = body.getReader();
  let isOver = false;
  const end = () => {
    if (isOver) return;
    isOver = true;
    onEnd();
  };
  return new ReadableStream({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        if (value) controller.enqueue(value);
        if (!done) return;
        end();
        controller.close();
      } catch (error) {
        end();
        controller.error(error);
      }
    },
    cancel(reason) {
      end();
      return reader.cancel(reason);
    },
  });
}
