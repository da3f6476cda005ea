/** What a caller may send to `POST /v1/tasks`. */
import * as v from "valibot";
import { UsdAmount } from "../money.ts";
import { SubmittedPlan } from "../planning/submitted-plan.ts";
import { PluginName } from "../sdk/src/manifest.ts";
import { readOutboundUrl } from "../sdk/src/outbound-url.ts";

export const MAX_SUBMISSION_BYTES = 8 * 1024 * 1024;
export const MAX_COMMAND_LENGTH = 10_000;

const FileName = v.pipe(
  v.string(),
  v.minLength(1),
  v.maxLength(255),
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what it refuses.
  v.regex(/^[^\u0000-\u001f\u007f]+$/, "must not contain control characters"),
);
const MediaType = v.pipe(v.string(), v.maxLength(127), v.regex(/^[\w.+-]{1,60}\/[\w.+-]{1,60}(; ?charset=[\w-]{1,40})?$/, "must be a media type such as text/plain"));

/** A plugin may fetch it, and looks again when it does. */
const OutsideUrl = v.pipe(
  v.string(),
  v.maxLength(2048),
  v.rawCheck(({ dataset, addIssue }) => {
    const read = dataset.typed ? readOutboundUrl(dataset.value, { allowPrivate: false }) : null;
    if (read && "problem" in read) addIssue({ message: read.problem });
  }),
  v.metadata({ format: "uri", examples: ["https://github.com/acme/shop/pull/7"] }),
);

const Attachment = v.pipe(
  v.strictObject({
    name: FileName,
    media_type: MediaType,
    content: v.optional(v.string()),
    content_base64: v.optional(v.pipe(v.string(), v.base64("must be base64"))),
    url: v.optional(OutsideUrl),
  }),
  v.metadata({ oneOf: [{ required: ["content"] }, { required: ["content_base64"] }, { required: ["url"] }] }),
  v.check((a) => [a.content, a.content_base64, a.url].filter((x) => x !== undefined).length === 1, "give exactly one of content, content_base64 and url"),
);

const DAY_MS = 86_400_000;
const Deadline = v.pipe(
  v.string(),
  v.isoTimestamp("must be a time such as 2027-01-31T12:00:00Z"),
  v.transform((text) => new Date(text)),
  v.check((at) => Number.isFinite(at.getTime()), "must be a time such as 2027-01-31T12:00:00Z"),
  v.check((at) => at.getTime() > Date.now() && at.getTime() <= Date.now() + DAY_MS, "must be in the future, at most 24 hours from now"),
);

const Fields = v.strictObject({
  command: v.pipe(
    v.string(),
    v.trim(),
    v.minLength(1, "must not be empty"),
    v.maxLength(MAX_COMMAND_LENGTH, `must have at most ${MAX_COMMAND_LENGTH} characters`),
    v.description("What should be done, in plain language."),
  ),
  attachments: v.optional(
    v.pipe(v.array(Attachment), v.maxLength(20, "must have at most 20 entries"), v.description("Files for the plugin, each as text, as base64 or as an https link.")),
    [],
  ),
  plugin: v.optional(v.pipe(PluginName, v.description("Names the plugin; without it the platform finds the one that fits."))),
  plan: v.optional(v.pipe(SubmittedPlan, v.description("Steps that you have planned yourself; without it the platform plans."))),
  conversation_id: v.optional(
    v.pipe(v.string(), v.regex(/^[A-Za-z0-9_-]{1,64}$/, "must be 1 to 64 of A-Z, a-z, 0-9, _ and -"), v.description("Tasks with the same id belong to one conversation.")),
  ),
  priority: v.optional(v.picklist(["low", "normal", "high"], "must be low, normal or high"), "normal"),
  max_cost_usd: v.pipe(v.optional(UsdAmount), v.description("The task stops before its model calls cost more than this.")),
  deadline: v.pipe(v.optional(Deadline), v.description("The task fails when it has not ended by then; one hour from now unless said, at most 24 hours.")),
});
export const Submission = v.pipe(
  Fields,
  v.check(({ plugin, plan }) => plugin === undefined || plan === undefined, "give plugin or plan, not both"),
);
export type Submission = v.InferOutput<typeof Submission>;

export const IdempotencyKey = v.pipe(v.string(), v.regex(/^[\x21-\x7e]{1,255}$/));

/** Seconds of `Prefer: wait=N` (RFC 7240), at most 25; null when the caller does not ask to wait. */
export function waitSecondsOf(prefer: string | undefined): number | null {
  const match = /(?:^|[,;\s])wait=(\d{1,4})(?=$|[,;\s])/.exec(prefer ?? "");
  return match ? Math.min(Number(match[1]), 25) : null;
}
