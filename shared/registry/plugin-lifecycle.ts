/** A plugin's way out, in steps that its subscribers hear of: active → deprecated → sunset → retired. The steps are taken in migrations/. */
import * as v from "valibot";
import type { PlatformDb } from "../db/database.ts";
import { Refusal } from "../errors.ts";

/** What subscribers are promised between the notice and the end. */
const NOTICE = "90 days";

const Time = v.nullable(
  v.pipe(
    v.date(),
    v.transform((date) => date.toISOString()),
  ),
);
const Deprecated = v.object({
  outcome: v.picklist(["deprecated", "changed", "unchanged", "too_soon", "over"]),
  status: v.string(),
  deprecated_at: Time,
  sunset_at: Time,
  migration_guide_url: v.nullable(v.string()),
  generation: v.string(),
});
const Restored = v.object({ outcome: v.picklist(["active", "unchanged", "over"]), generation: v.string() });

export const LifecycleView = v.strictObject({
  plugin: v.string(),
  status: v.string(),
  deprecated_at: v.nullable(v.string()),
  sunset_at: v.nullable(v.string()),
  migration_guide_url: v.nullable(v.string()),
});
export interface Moved {
  view: v.InferOutput<typeof LifecycleView>;
  generation: string;
}

const unknown = () => new Refusal("NOT_FOUND", { message: "There is no such plugin." });
const over = () => new Refusal("CONFLICT", { message: "The plugin has reached its sunset; its subscriptions are ended." });

/** Without a time, the end is as near as it may be. Asking again changes the guide, or puts the end off. */
export async function deprecatePlugin(db: PlatformDb, plugin: string, { sunsetAt, guideUrl }: { sunsetAt: Date | null; guideUrl: string | null }): Promise<Moved> {
  const [raw] = await db.call("SELECT * FROM deprecate_plugin($1, $2, $3, $4)", [plugin, sunsetAt, guideUrl, NOTICE]);
  if (!raw) throw unknown();
  const { outcome, generation, ...view } = v.parse(Deprecated, raw);
  if (outcome === "over") throw over();
  if (outcome === "too_soon")
    throw new Refusal("INVALID_INPUT", { message: `sunset_at: subscribers are promised ${NOTICE} of notice, and an end that was announced is not brought forward.` });
  return { view: { plugin, ...view }, generation };
}

/** Takes a deprecation back. */
export async function restorePlugin(db: PlatformDb, plugin: string): Promise<Moved> {
  const [raw] = await db.call("SELECT * FROM restore_plugin($1)", [plugin]);
  if (!raw) throw unknown();
  const { outcome, generation } = v.parse(Restored, raw);
  if (outcome === "over") throw over();
  return { view: { plugin, status: "active", deprecated_at: null, sunset_at: null, migration_guide_url: null }, generation };
}

const Advanced = v.object({ name: v.string(), status: v.picklist(["sunset", "retired"]), subscriptions_ended: v.number(), generation: v.string() });
export type Advanced = v.InferOutput<typeof Advanced>;

/** Takes the steps that are due; a plugin that somebody else is moving is left to them. */
export async function advancePlugins(db: PlatformDb): Promise<Advanced[]> {
  return v.parse(v.array(Advanced), await db.call("SELECT * FROM advance_plugins()", []));
}
