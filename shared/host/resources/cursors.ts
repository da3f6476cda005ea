import { openCursors } from "../../cursor.ts";
import { required } from "../config.ts";
import type { Opener, Resources } from "../resources.ts";

export const opener: Opener<Resources["cursors"]> = { variables: ["CAPABILITY_KEY"], open: ({ config }) => openCursors(required(config, "CAPABILITY_KEY")) };
