import * as v from "valibot";
import { Refusal } from "../../shared/errors.ts";
import { created, http } from "../../shared/host/declare.ts";
import { publicId } from "../../shared/ids.ts";
import { SubscriptionView, subscribe, subscriptionView } from "../../shared/metering/subscriptions.ts";
import { PluginName } from "../../shared/sdk/src/manifest.ts";

const NewSubscription = v.strictObject({
  plugin: PluginName,
  overage_enabled: v.pipe(
    v.optional(v.boolean(), false),
    v.description("Whether executions beyond the month's quota are run and billed one by one, where the plan has that; otherwise they are refused."),
  ),
});

/** Subscribes the tenant to a plugin, within what its plan includes; the next task may use it. */
export default http({
  name: "subscription-create",
  summary: "Subscribe to a plugin.",
  route: "POST /v1/subscriptions",
  scope: "billing:admin",
  liveKeyOnly: true,
  needs: ["db", "settings"],
  body: NewSubscription,
  replies: { 201: SubscriptionView },
  documented: {
    refusals: ["NOT_FOUND", "CONFLICT", "PLUGIN_LIMIT_REACHED"],
    requestExamples: { plain: { summary: "With overage", value: { plugin: "code-review", overage_enabled: true } } },
  },
  scale: { min: 0, max: 3, concurrency: 40 },

  async handle({ body: { plugin, overage_enabled }, caller, db, settings }) {
    const found = await subscribe(db, caller, plugin, overage_enabled);
    switch (found.outcome) {
      case "subscribed":
        return created(subscriptionView(found.row));
      case "unknown":
        throw new Refusal("NOT_FOUND", { message: `There is no plugin named ${plugin}.` });
      case "already":
        throw new Refusal("CONFLICT", {
          message: `You have subscribed to ${plugin}; end that subscription first.`,
          details: { subscription_id: publicId("subscription", found.subscription ?? "") },
        });
      case "deprecated":
        throw new Refusal("CONFLICT", { message: `${plugin} is deprecated and takes no new subscriptions.` });
      case "not_included":
        throw new Refusal("CONFLICT", { message: `The ${found.tier} plan has no plugins of your own, and ${plugin} is one.` });
      case "no_overage":
        throw new Refusal("CONFLICT", { message: `The ${found.tier} plan has no overage.` });
      case "limit_reached":
        throw new Refusal("PLUGIN_LIMIT_REACHED", {
          message: `The ${found.tier} plan includes ${found.plugins_included} plugin${found.plugins_included === 1 ? "" : "s"} at a time. End a subscription, or change the plan.`,
          details: { plugins_included: found.plugins_included, upgrade_url: settings.UPGRADE_URL },
        });
    }
  },
});
