/**
 * Publishes running plugins in the registry, and on request makes the two tenants of the local stack:
 * `register [--registry <url>] [--image <host/repository@sha256:…>] [--seed <folder>] <plugin's url> …`, with SERVICE_TOKEN (and DATABASE_URL for
 * `--seed`). The image is the one that all of these plugins run from; its registry holds a signature for each of their manifests. Safe to repeat.
 */
import { parseArgs } from "node:util";
import { openDatabase } from "../shared/db/database.ts";
import { readConfig, required } from "../shared/host/config.ts";
import { functionUrl } from "../shared/host/function-url.ts";
import { asCommand } from "./command.ts";
import { openHome } from "./local/home.ts";
import { registerPlugin } from "./local/register.ts";
import { seed } from "./seed.ts";

/** Services that are just being set up answer late. */
const TRIES = 30;
const PAUSE_MS = 4_000;

async function patiently<T>(what: string, work: () => Promise<T>): Promise<T> {
  for (let left = TRIES; ; left--) {
    try {
      return await work();
    } catch (error) {
      if (left <= 1) throw error;
      console.log(`${what} is not ready yet`);
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}

const USAGE = `register [--registry <url>] [--image <host/repository@sha256:…>] [--seed <folder>] <plugin's url> …

Publishes running plugins. It needs SERVICE_TOKEN, and DATABASE_URL for --seed, which makes the two tenants of the local stack.`;

await asCommand(USAGE, async (args) => {
  const { values, positionals } = parseArgs({ args, options: { registry: { type: "string" }, image: { type: "string" }, seed: { type: "string" } }, allowPositionals: true });
  const config = readConfig(process.env);
  const serviceToken = required(config, "SERVICE_TOKEN");
  const registryUrl = values.registry ?? functionUrl(config, "registry-register");
  const plugins: string[] = [];
  for (const endpoint of positionals) {
    const manifest = await patiently(endpoint, () => registerPlugin({ registryUrl, serviceToken, endpoint, image: values.image }));
    console.log(`${manifest.name} ${manifest.version} is registered`);
    plugins.push(manifest.name);
  }
  if (values.seed) {
    const db = await openDatabase({ url: required(config, "DATABASE_URL"), driver: config.DATABASE_DRIVER, poolSize: 1 });
    const home = openHome(values.seed);
    await seed(db, home, plugins).finally(() => db.close());
    console.log(`The tenants' keys are in ${home.path("keys.json")}`);
  }
  return 0;
});
