/** The probe plugin's process, with failpoints. */
import { installFailpoints } from "../../shared/host/install-failpoints.ts";
import { serve } from "../../shared/sdk/src/serve.ts";
import plugin from "./plugin.ts";

export async function start(): Promise<void> {
  installFailpoints(process.env.AAU_FP);
  await serve(plugin);
}
