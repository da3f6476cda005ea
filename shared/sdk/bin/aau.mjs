#!/usr/bin/env node
// The command is TypeScript like the rest of the SDK, and so are the plugins that it loads.
import { register } from "tsx/esm/api";

register();
const { main } = await import("../src/cli/main.ts");
process.exitCode = await main(process.argv.slice(2));
