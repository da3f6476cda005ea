import { capabilitySigner } from "../../access/capability-token.ts";
import { required } from "../config.ts";
import type { Opener, Resources } from "../resources.ts";

export const opener: Opener<Resources["capabilities"]> = { variables: ["CAPABILITY_KEY"], open: ({ config }) => capabilitySigner(required(config, "CAPABILITY_KEY")) };
