import { openPaymentSystem } from "../../metering/payment-system.ts";
import { required } from "../config.ts";
import type { Opener, Resources } from "../resources.ts";

export const opener: Opener<Resources["paymentSystem"]> = {
  variables: ["BILLING_EVENTS_URL", "BILLING_EVENTS_SECRET"],
  open: ({ config }) => (config.BILLING_EVENTS_URL === undefined ? null : openPaymentSystem(config.BILLING_EVENTS_URL, required(config, "BILLING_EVENTS_SECRET"))),
};
