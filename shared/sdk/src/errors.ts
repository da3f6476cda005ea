/**
 * The errors with a meaning of their own. Whatever else a node throws is the plugin's fault: the caller is told which node
 * failed, never the error's text, since that text may hold a secret or another document's content.
 */

/** Input that this plugin cannot work on. The message is shown to the caller as it is: say what to send instead. */
export class CallerMistake extends Error {
  override readonly name = "CallerMistake";
}

/** The model refused for reasons of policy. Raised at a node boundary, see `onRefusal`; a node may throw it itself. */
export class ContentPolicyRefusal extends Error {
  override readonly name = "ContentPolicyRefusal";
}

/** A gateway of the platform did not do what was asked: `status` is its HTTP status, or `null` when it never answered. */
export class GatewayError extends Error {
  override readonly name = "GatewayError";
  readonly status: number | null;

  constructor(message: string, status: number | null, options?: ErrorOptions) {
    super(message, options);
    this.status = status;
  }
}

/**
 * A service outside the platform (an issue tracker, a code host) did not do its part, and may do so later: the platform tries again, and
 * counts it against the plugin's health, unless it is the caller's own choice (`isCallers`): what is wrong with one tenant's service says
 * nothing of the plugin that works for all. The message is shown to the caller as it is.
 */
export class UpstreamUnavailable extends Error {
  override readonly name = "UpstreamUnavailable";
  readonly isCallers: boolean;

  constructor(message?: string, { isCallers = false, ...options }: ErrorOptions & { isCallers?: boolean } = {}) {
    super(message, options);
    this.isCallers = isCallers;
  }
}

/** Why an execution was stopped from outside; the `reason` of the execution's AbortSignal. */
export class Stopped extends Error {
  override readonly name = "Stopped";
  /** `time_limit`: the plugin's own time is up. `deadline`: the caller allowed less. `gone`: nobody waits for the answer. */
  readonly why: "time_limit" | "deadline" | "gone" | "shutdown";

  constructor(why: Stopped["why"], message: string) {
    super(message);
    this.why = why;
  }
}
