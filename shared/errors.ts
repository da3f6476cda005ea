/** The one table of errors. HTTP replies, OpenAPI, the docs and the bridge's decision to deliver again all derive from it. */

export const ERRORS = {
  SIGNATURE_REJECTED: { status: 400, retryable: false, message: "The plugin's signature was not accepted." },
  AUTH_INVALID: { status: 401, retryable: false, message: "The API key is missing, unknown, expired or revoked." },
  FORBIDDEN_SCOPE: { status: 403, retryable: false, message: "This key does not have the scope that the call needs." },
  PLUGIN_NOT_SUBSCRIBED: { status: 403, retryable: false, message: "Your plan does not include this plugin." },
  PLUGIN_LIMIT_REACHED: { status: 403, retryable: false, message: "Your plan does not include more plugins." },
  CHAINING_NOT_INCLUDED: { status: 403, retryable: false, message: "Your plan does not include chains of several plugins." },
  NOT_FOUND: { status: 404, retryable: false, message: "There is nothing at this address." },
  METHOD_NOT_ALLOWED: { status: 405, retryable: false, message: "This address does not answer to that method." },
  CONFLICT: { status: 409, retryable: false, message: "The request does not fit the present state." },
  INPUT_TIMEOUT: { status: 409, retryable: false, message: "The question was not answered in time." },
  PAYLOAD_TOO_LARGE: { status: 413, retryable: false, message: "The body, or the headers, are too large." },
  UNSUPPORTED_MEDIA_TYPE: { status: 415, retryable: false, message: "Send the body as application/json, uncompressed." },
  INVALID_INPUT: { status: 422, retryable: false, message: "The request is not valid." },
  NO_MATCHING_PLUGIN: { status: 422, retryable: false, message: "No plugin fits this command." },
  CIRCULAR_DEPENDENCY: { status: 422, retryable: false, message: "The plugins depend on each other in a circle." },
  VERSION_UNSATISFIED: { status: 422, retryable: false, message: "No version of a plugin fits what is asked for." },
  CHAIN_LIMIT: { status: 422, retryable: false, message: "Plugins call each other too deep or too often." },
  CONTENT_POLICY_VIOLATION: { status: 422, retryable: false, message: "The model's provider declined this content." },
  QUOTA_EXCEEDED: { status: 429, retryable: false, message: "The subscription's quota for this period is used up." },
  RATE_LIMITED: { status: 429, retryable: true, message: "Too many requests; wait and try again." },
  INTERNAL: { status: 500, retryable: true, message: "Something went wrong on our side. Quote the request id when you report it." },
  PLUGIN_UNAVAILABLE: { status: 503, retryable: true, message: "The plugin cannot be reached." },
  SERVICE_UNAVAILABLE: { status: 503, retryable: true, message: "A part of the platform cannot be reached; try again shortly." },
  PLUGIN_TIMEOUT: { status: 504, retryable: true, message: "The plugin did not finish in time." },
} as const;

export type ErrorCode = keyof typeof ERRORS;

interface RefusalDetails {
  message?: string;
  /** Extra members of the error object, such as `upgrade_url` or `candidates`. Snake case, as the caller sees them. */
  details?: Record<string, unknown>;
  headers?: Record<string, string>;
  retryAfterSec?: number;
  cause?: unknown;
}

/** A refusal that the caller is told about. Anything else that is thrown becomes `INTERNAL`, and only the log knows why. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  readonly code: ErrorCode;
  readonly details: Record<string, unknown>;
  readonly headers: Record<string, string>;

  constructor(code: ErrorCode, { message, details = {}, headers = {}, retryAfterSec, cause }: RefusalDetails = {}) {
    super(message ?? ERRORS[code].message, { cause });
    this.code = code;
    this.details = details;
    this.headers = retryAfterSec === undefined ? headers : { ...headers, "retry-after": String(Math.max(1, Math.ceil(retryAfterSec))) };
  }

  get status(): number {
    return ERRORS[this.code].status;
  }
}

/** The body of SPEC 6.6 with `retryable` added. */
export function errorBody(code: ErrorCode, message: string, requestId: string, details: Record<string, unknown> = {}) {
  return { error: { code, message, retryable: ERRORS[code].retryable, ...details, request_id: requestId } };
}
