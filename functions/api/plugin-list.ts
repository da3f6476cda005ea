import * as v from "valibot";
import { lookAtCircuits } from "../../shared/execution/circuit-breaker.ts";
import { http, ok } from "../../shared/host/declare.ts";
import { currentCatalogue } from "../../shared/registry/catalogue.ts";
import { PluginSummary, pluginSummary } from "../../shared/registry/plugin-view.ts";
import { findSubscriptions } from "../../shared/registry/subscriptions.ts";

/** The catalogue as this tenant sees it. */
export default http({
  name: "plugin-list",
  summary: "List the plugins, searched by text and category, with the tenant's subscriptions.",
  route: "GET /v1/plugins",
  scope: "plugins:read",
  needs: ["db", "redis"],
  query: v.strictObject({ q: v.optional(v.pipe(v.string(), v.maxLength(200))), category: v.optional(v.pipe(v.string(), v.maxLength(40))) }),
  replies: { 200: v.strictObject({ plugins: v.array(PluginSummary) }) },
  scale: { min: 0, max: 5, concurrency: 80 },

  async handle({ query, caller, request, db, redis }) {
    const [catalogue, subscribed] = await Promise.all([
      currentCatalogue(db, redis, request.admission?.registryGeneration ?? null, caller.tenantId),
      findSubscriptions(db, caller.tenantId),
    ]);
    const words = (query.q ?? "").toLowerCase().split(/\s+/).filter(Boolean);
    const plugins = [...catalogue.plugins.values()]
      .filter((p) => !query.category || p.manifest.category === query.category)
      .filter((p) => {
        const text = [p.name, p.manifest.description, ...p.manifest.capabilities].join(" ").toLowerCase();
        return words.every((word) => text.includes(word));
      })
      .sort((a, b) => (a.name < b.name ? -1 : 1));
    const circuits = await lookAtCircuits(
      redis,
      plugins.map(({ name, version }) => ({ plugin: name, version })),
    );
    return ok({ plugins: plugins.map((p, at) => pluginSummary(p, subscribed.has(p.name), circuits?.[at] ?? "closed")) });
  },
});
