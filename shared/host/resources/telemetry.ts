import type { Opener, Resources } from "../resources.ts";

export const opener: Opener<Resources["telemetry"]> = { variables: [], open: ({ telemetry }) => telemetry };
