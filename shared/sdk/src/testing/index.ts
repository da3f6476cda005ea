/** @aau/sdk/testing: a local platform for one plugin. */
export type { ModelAnswer, ModelCall, ModelScript } from "./model-script.ts";
export type { AddedDocument, ChainAnswer, ChainScript, RecordedCall, RecordedModelCall, StoredArtifact } from "./platform-stand-in.ts";
export { type HarnessOptions, type HarnessRun, PluginHarness } from "./plugin-harness.ts";
export type { RunOptions } from "./run-options.ts";
