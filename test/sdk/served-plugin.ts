/** A plugin in its own process, as Knative runs it: everything comes from the environment. */
import { serve } from "../../shared/sdk/src/serve.ts";
import { ask, pluginOf } from "./plugins.ts";

const { port } = await serve(pluginOf((ctx, task) => ask(ctx, task)));
process.send?.({ port });
