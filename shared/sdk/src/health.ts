/** How a plugin is, and how the things that it depends on are. */
import * as v from "valibot";
import type { Plugin } from "./define-plugin.ts";

export const HealthStatus = v.object({
  status: v.picklist(["healthy", "degraded", "unhealthy"]),
  /** Part by part, such as `{ github_api: "degraded" }`. */
  components: v.record(v.string(), v.string()),
  message: v.optional(v.nullable(v.string()), null),
});
export type HealthStatus = v.InferInput<typeof HealthStatus>;

const TIMEOUT_MS = 5000;

/** Never throws, and takes at most 5 s: a check that fails is an unhealthy plugin, and its error's text stays here. */
export async function askHealth({ definition }: Plugin): Promise<HealthStatus> {
  if (!definition.health) return { status: "healthy", components: {}, message: null };
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("late")), TIMEOUT_MS);
  });
  try {
    return v.parse(HealthStatus, await Promise.race([Promise.resolve(definition.health()), late]));
  } catch {
    return { status: "unhealthy", components: {}, message: "The plugin's own health check failed." };
  } finally {
    clearTimeout(timer);
  }
}
