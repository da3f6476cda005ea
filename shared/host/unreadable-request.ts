/** Answers what never becomes a request, since its headers are too large or it is no HTTP: in the one format of errors, as everything else is refused. */
import type { Socket } from "node:net";
import { RequestError } from "@hono/node-server";
import { ERRORS, type ErrorCode, errorBody } from "../errors.ts";
import { newRequestId } from "../ids.ts";

/** For a server's `clientError`. */
export function answerUnreadable(error: NodeJS.ErrnoException, socket: Socket, maxHeaderBytes: number): void {
  // Nobody listens any more, or an answer has begun that must not be followed by this.
  if (error.code === "ECONNRESET" || !socket.writable || hasBegunAnswer(socket)) {
    socket.destroy();
    return;
  }
  if (error.code === "HPE_HEADER_OVERFLOW") refuse(socket, "PAYLOAD_TOO_LARGE", `The headers are larger than ${maxHeaderBytes} bytes.`);
  else if (error.code === "ERR_HTTP_REQUEST_TIMEOUT") socket.end("HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\r\n");
  else refuse(socket, "INVALID_INPUT", "The request is not valid HTTP/1.1.");
}

/** For HTTP that names no address: a host that is none, a path with a backslash. What else is thrown outside of a function is our own fault. */
export function answerUnaddressed(error: unknown): Response {
  if (!(error instanceof RequestError)) console.error(error);
  const [code, message] =
    error instanceof RequestError ? (["INVALID_INPUT", "The request's host or path is not valid."] as const) : (["INTERNAL", ERRORS.INTERNAL.message] as const);
  const { body, headers } = refusal(code, message);
  return new Response(body, { status: ERRORS[code].status, headers });
}

function refuse(socket: Socket, code: ErrorCode, message: string): void {
  const { body, headers } = refusal(code, message);
  const lines = Object.entries({ ...headers, "content-length": Buffer.byteLength(body), connection: "close" }).map(([name, value]) => `${name}: ${value}`);
  socket.end(`${[`HTTP/1.1 ${ERRORS[code].status} Refused`, ...lines].join("\r\n")}\r\n\r\n${body}`);
}

function refusal(code: ErrorCode, message: string): { body: string; headers: Record<string, string> } {
  const requestId = newRequestId();
  return {
    body: JSON.stringify(errorBody(code, message, requestId)),
    headers: { "content-type": "application/json; charset=utf-8", "cache-control": "no-store", "x-content-type-options": "nosniff", "x-request-id": requestId },
  };
}

/** As Node's own handler looks. */
function hasBegunAnswer(socket: Socket): boolean {
  const message: unknown = Reflect.get(socket, "_httpMessage");
  return typeof message === "object" && message !== null && "headersSent" in message && message.headersSent === true;
}
