import type { Opener, Resources } from "../resources.ts";
import { DATABASE_VARIABLES, database } from "./connections.ts";

export const opener: Opener<Resources["platformDb"]> = { variables: DATABASE_VARIABLES, open: database };
