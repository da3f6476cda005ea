class AnswerTooLong extends Error {
  override readonly name = "AnswerTooLong";
}

/** The bytes of a body, or AnswerTooLong as soon as there are more; the sender's socket is then closed. */
export async function readBounded(body: ReadableStream<Uint8Array>, atMost: number): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  let total = 0;
  for await (const chunk of body) {
    total += chunk.byteLength;
    // Leaving the loop cancels the stream.
    if (total > atMost) throw new AnswerTooLong(`The answer is longer than ${atMost} bytes.`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, total);
}
