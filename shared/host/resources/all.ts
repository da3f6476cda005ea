/** Every opener, for hosts that serve many functions at once: the local platform and the tests. A bundle never imports this. */
import type { Openers } from "../resources.ts";
import { opener as capabilities } from "./capabilities.ts";
import { opener as clock } from "./clock.ts";
import { opener as cursors } from "./cursors.ts";
import { opener as db } from "./db.ts";
import { opener as egress } from "./egress.ts";
import { opener as embedder } from "./embedder.ts";
import { opener as keyRing } from "./key-ring.ts";
import { opener as paymentSystem } from "./payment-system.ts";
import { opener as platformDb } from "./platform-db.ts";
import { opener as pluginTrust } from "./plugin-trust.ts";
import { opener as plugins } from "./plugins.ts";
import { opener as redis } from "./redis.ts";
import { opener as ring } from "./ring.ts";
import { opener as secrets } from "./secrets.ts";
import { opener as settings } from "./settings.ts";
import { opener as signals } from "./signals.ts";
import { opener as storage } from "./storage.ts";
import { opener as telemetry } from "./telemetry.ts";
import { opener as upstream } from "./upstream.ts";

export const ALL_OPENERS: Openers = {
  capabilities,
  clock,
  cursors,
  db,
  egress,
  embedder,
  keyRing,
  paymentSystem,
  platformDb,
  plugins,
  pluginTrust,
  redis,
  ring,
  secrets,
  settings,
  signals,
  storage,
  telemetry,
  upstream,
};
