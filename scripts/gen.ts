/**
 * Writes everything that follows from the declarations. `npm run gen` writes; `npm run gen -- --check` says what would change and
 * fails if anything would.
 */
import { parseArgs } from "node:util";
import { asCommand } from "./command.ts";
import { loadFunctions, ROOT } from "./functions.ts";
import { openApiFile, publicRoutesFile, wiringFile } from "./gen/documents.ts";
import { type Generator, plan, write } from "./gen/generate.ts";
import { prometheusOperatorFiles } from "./gen/monitoring.ts";
import { exampleSecrets, platformFiles } from "./gen/platform.ts";
import { readme } from "./gen/readme.ts";
import { routeFiles } from "./gen/routes.ts";
import { serviceFiles } from "./gen/services.ts";
import { cronJobFiles, sourceFiles } from "./gen/sources.ts";

/** Every generated file and folder. A folder belongs to its generator alone: what it does not make is removed. */
const USAGE = `npm run gen -- [--check]

Writes all files that follow from the declarations; with --check it only says which do not match, and ends with 1.`;

export const GENERATORS: readonly Generator[] = [
  { folder: "knative/services", make: serviceFiles },
  { folder: "knative/routes", make: routeFiles },
  { folder: "knative/sources", make: sourceFiles },
  { folder: "knative/cron-jobs", make: cronJobFiles },
  { folder: "knative/platform", make: platformFiles },
  { folder: "knative/overlays/prometheus-operator", make: prometheusOperatorFiles },
  { path: "shared/host/openapi.generated.json", make: openApiFile },
  { path: "shared/host/public-routes.generated.ts", make: publicRoutesFile },
  { path: "shared/host/bridge/wiring.generated.ts", make: wiringFile },
  { path: "knative/base/secrets.example.yaml", make: exampleSecrets },
  { path: "README.md", make: readme },
];

if (process.argv[1] === import.meta.filename)
  await asCommand(USAGE, async (args) => {
    const { values } = parseArgs({ args, options: { check: { type: "boolean" } } });
    const changes = await plan(GENERATORS, await loadFunctions(), ROOT);
    for (const { path, kind } of changes) console.log(`${kind.padEnd(7)} ${path}`);
    if (!values.check) await write(changes, ROOT);
    else if (changes.length > 0) console.error(`${changes.length} generated files do not match the declarations. Run: npm run gen`);
    return values.check && changes.length > 0 ? 1 : 0;
  });
