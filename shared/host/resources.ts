/** The outside resources that a function can ask for by name. Types only: a bundle contains just the openers it needs. */
import type { Redis } from "ioredis";
import type { CapabilitySigner } from "../access/capability-token.ts";
import type { KeyRing } from "../access/key-ring.ts";
import type { TenantSecrets } from "../access/tenant-secrets.ts";
import type { Cursors } from "../cursor.ts";
import type { PlatformDb, TenantDb } from "../db/database.ts";
import type { Egress } from "../egress/outbound-post.ts";
import type { PluginClient } from "../execution/plugin-client.ts";
import type { PaymentSystem } from "../metering/announce-invoices.ts";
import type { Embedder } from "../models/embedder.ts";
import type { Upstream } from "../models/upstream.ts";
import type { Signals } from "../redis/signals.ts";
import type { Ring } from "../redis/streams.ts";
import type { PluginTrust } from "../registry/admit-image.ts";
import type { ObjectStore } from "../storage/object-store.ts";
import type { Telemetry } from "../telemetry/domain-events.ts";
import type { Config, VariableName } from "./config.ts";

export type Settings = Pick<Config, "CHAIN_THRESHOLD" | "CONFIDENCE_MIN" | "PUBLIC_URL" | "UPGRADE_URL" | "FUNCTION_URL" | "FUNCTION_URLS" | "TASK_LEASE_MS" | "MAX_CRASHES">;

export interface Resources {
  /** PostgreSQL, one tenant at a time. */
  db: TenantDb;
  /** PostgreSQL for jobs that serve all tenants. */
  platformDb: PlatformDb;
  redis: Redis;
  ring: Ring;
  signals: Signals;
  storage: ObjectStore;
  embedder: Embedder;
  /** The language model's provider, or the offline stand-in. */
  upstream: Upstream;
  /** Calls plugins' services. */
  plugins: PluginClient;
  capabilities: CapabilitySigner;
  /** The registries of plugins' images, and the key with which the platform countersigns what it accepts. */
  pluginTrust: PluginTrust;
  secrets: TenantSecrets;
  /** What seals and opens secrets that stand in other tables. */
  keyRing: KeyRing;
  /** Calls addresses that tenants named, and no address inside. */
  egress: Egress;
  cursors: Cursors;
  /** Null: the operator has named none. */
  paymentSystem: PaymentSystem | null;
  /** This process's counters; a domain event moves them where it writes its log line. */
  telemetry: Telemetry;
  clock: () => Date;
  settings: Settings;
}

export type ResourceName = keyof Resources;

/** What an opener may use: the settings, other resources, and a place to say how to close what it opened. */
export interface Opening {
  config: Config;
  telemetry: Telemetry;
  /** Opens another resource, or hands out the one that is open. */
  share<T>(name: string, open: () => Promise<T> | T): Promise<T>;
  onClose(close: () => Promise<unknown> | unknown): void;
}

export interface Opener<T> {
  /** The settings that it reads; they become the environment of the service. */
  variables: readonly VariableName[];
  open(opening: Opening): Promise<T> | T;
}

export type Openers<N extends ResourceName = ResourceName> = { readonly [K in N]: Opener<Resources[K]> };

export interface OpenResources<N extends ResourceName> {
  resources: Pick<Resources, N>;
  close(): Promise<void>;
}

/** Opens all of them at once; when one fails the others are closed again. */
export async function openResources<N extends ResourceName>(openers: Openers<N>, needs: readonly N[], config: Config, telemetry: Telemetry): Promise<OpenResources<N>> {
  const closers: (() => Promise<unknown> | unknown)[] = [];
  const shared = new Map<string, Promise<unknown>>();
  const opening: Opening = {
    config,
    telemetry,
    share<T>(name: string, open: () => Promise<T> | T) {
      let present = shared.get(name) as Promise<T> | undefined;
      if (!present) {
        present = Promise.resolve().then(open);
        shared.set(name, present);
      }
      return present;
    },
    onClose: (close) => closers.push(close),
  };
  const close = async () => {
    for (const closer of closers.reverse()) await Promise.resolve(closer()).catch(() => {});
  };
  try {
    const opened = await Promise.all(needs.map(async (need) => [need, await openers[need].open(opening)] as const));
    return { resources: Object.fromEntries(opened) as Pick<Resources, N>, close };
  } catch (error) {
    await close();
    throw error;
  }
}
