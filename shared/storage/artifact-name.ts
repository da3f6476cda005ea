/** Names of artifacts. Strict, so that a storage key is injective, no name climbs out of its task, and none needs quoting in a header. */
import * as v from "valibot";

export const ArtifactName = v.pipe(
  v.string(),
  v.regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$/, "an artifact's name is 1 to 200 of A-Z, a-z, 0-9, . _ and -, and begins with a letter or digit"),
);

/** What `singleStepPlan` calls its step. */
const ONLY_STEP = "main";

/**
 * `{tenant}/{plugin}/{task}/{name}`; the first three are UUIDs or checked names. Where a plan has several steps, those besides `main`
 * have a folder of their own, since two of them may use the same plugin and the same name.
 */
export function artifactKey(tenantId: string, plugin: string, taskId: string, step: string, name: string): string {
  return `${tenantId}/${plugin}/${taskId}/${step === ONLY_STEP ? "" : `${step}/`}${name}`;
}
