// Imports flow one way: DESIGN.md's list of folders, from the host down to the vocabulary. Functions never import functions;
// plugins import only the SDK.
const up = (name, from, to) => ({ name, severity: "error", from: { path: from }, to: { path: to } });

module.exports = {
  forbidden: [
    { name: "no-circles", severity: "error", from: { path: "^(functions|shared|scripts)" }, to: { circular: true, viaOnly: { dependencyTypesNot: ["type-only"] } } },
    { name: "functions-stand-alone", severity: "error", from: { path: "^functions/(api|events|cron|gateways)/" }, to: { path: "^functions/" } },
    {
      name: "plugins-import-only-the-sdk",
      severity: "error",
      from: { path: "^functions/plugins/([^/]+)/" },
      to: { path: "^(shared/(?!sdk/)|scripts/|test/|functions/(?!plugins/$1/))" },
    },
    up("nothing-imports-scripts-or-tests", "^(functions|shared)/", "^(scripts|test)/"),
    up("sdk-imports-nothing-of-ours", "^shared/sdk/", "^shared/(?!sdk/)"),
    {
      name: "domain-does-not-know-the-host",
      severity: "error",
      from: {
        path: "^shared/(tasks|routing|planning|execution|registry|access|metering|conversations|knowledge|tickets|privacy|webhooks|egress|db|redis|storage|models|telemetry|[^/]+\\.ts$)",
      },
      to: { path: "^shared/host/" },
    },
    {
      name: "resources-know-no-business",
      severity: "error",
      from: { path: "^shared/(db|redis|storage|models)/" },
      to: { path: "^shared/(tasks|routing|planning|execution|registry|access|metering|conversations|knowledge|tickets|privacy|webhooks)/", dependencyTypesNot: ["type-only"] },
    },
    { name: "vocabulary-stands-below-all", severity: "error", from: { path: "^shared/[^/]+\\.ts$" }, to: { path: "^shared/[^/]+/", pathNot: "^shared/sdk/" } },
    { name: "no-dev-dependency-in-production", severity: "error", from: { path: "^(functions|shared)/" }, to: { dependencyTypes: ["npm-dev"], dependencyTypesNot: ["type-only"] } },
    { name: "nothing-unresolved", severity: "error", from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    enhancedResolveOptions: { exportsFields: ["exports"], conditionNames: ["import", "node", "default", "types"], extensions: [".ts", ".mjs", ".js", ".json"] },
    exclude: { path: "\\.generated\\." },
  },
};
