/** `webhook-deliver` as a process of its own, so that it can be killed. */
import fn from "../../functions/events/webhook-deliver.ts";
import { ALL_OPENERS } from "../../shared/host/resources/all.ts";
import { serveFunction } from "../../shared/host/serve.ts";

await serveFunction(fn, ALL_OPENERS);
