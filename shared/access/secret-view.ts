/** A tenant's secret as the outside sees it: that it is there. */
import * as v from "valibot";
import type { StoredSecret } from "./tenant-secrets.ts";

const Time = v.pipe(v.string(), v.isoTimestamp());
export const SecretView = v.strictObject({ name: v.string(), created_at: Time, updated_at: Time });

export function secretView({ name, createdAt, updatedAt }: StoredSecret): v.InferOutput<typeof SecretView> {
  return { name, created_at: createdAt.toISOString(), updated_at: updatedAt.toISOString() };
}
