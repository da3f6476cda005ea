/**
 * What a function file exports. A declaration is data: importing one opens nothing and reads nothing, so the host, the local
 * gateway, OpenAPI, the Knative manifests and the common tests can all be derived from it.
 */
import type * as v from "valibot";
import type { Admission } from "../access/admission.ts";
import type { Caller, Scope } from "../access/caller.ts";
import type { Capability, CapabilityAudience } from "../access/capability-token.ts";
import type { ErrorCode } from "../errors.ts";
import type { LogFields } from "../telemetry/log.ts";
import type { Resources } from "./resources.ts";

export type Method = "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
export type Route = `${Method} /${string}`;
export type Need = keyof Resources;

/** Instances and requests per instance, as Knative's autoscaler reads them. */
export interface Scale {
  min: number;
  max: number;
  /** Requests in one instance at a time. */
  concurrency: number;
}

// biome-ignore lint/suspicious/noExplicitAny: a schema of any shape; `Parsed` gets the shape back.
export type Schema = v.GenericSchema<any, any>;
type Parsed<S> = S extends Schema ? v.InferOutput<S> : undefined;

/** What every handler knows of the request. */
export interface RequestInfo {
  /** What the guard looked up on the way; absent on public routes. */
  admission?: Admission;
  /**
   * Counts this request in the plugin's rate window; throws RATE_LIMITED. Once per request and plugin. The plugin that the route hint led to
   * comes first: the guard has counted it already.
   */
  admitToPlugin(plugin: string): Promise<void>;
  /** Aborted when the process is asked to stop: those who wait answer early. */
  draining: AbortSignal;
  requestId: string;
  traceparent: string;
  /** The caller's, when it sent one. */
  parent: string | null;
  method: string;
  path: string;
  /** Aborted when the caller hangs up. */
  signal: AbortSignal;
  header(name: string): string | undefined;
  /** Adds what the handler found out to the request's log line. */
  note(fields: Pick<LogFields, "task_id" | "plugin_name" | "routing_method">): void;
  /** The bytes of the body as they came; empty without one. */
  bodyBytes: Uint8Array;
}

export interface Reply {
  status: number;
  body?: unknown;
  headers?: Record<string, string>;
  /** A body that goes out as it is: a stream, a page. Excludes `body`. */
  raw?: string | Uint8Array<ArrayBuffer> | ReadableStream<Uint8Array>;
}

export type HttpArguments<N extends readonly Need[], P, Q, B> = { params: Parsed<P>; query: Parsed<Q>; body: Parsed<B>; caller: Caller; request: RequestInfo } & Pick<
  Resources,
  N[number]
>;

interface Common<N extends readonly Need[]> {
  /** Noun-verb in kebab case: the file, the Knative Service, the log field, the metric label and the test. */
  name: string;
  /** One sentence for OpenAPI and the function table. */
  summary: string;
  /** The outside resources that it touches: types the argument, opens them, and picks the Secrets that the service mounts. */
  needs: N;
  scale: Scale;
  /** Knative's `timeoutSeconds`; at least 45 (KNATIVE.md). */
  timeoutSec?: number;
  /** Memory limit in MiB. */
  memoryMib?: number;
}

/** What the API's document says beyond what the route, the scope and the schemas imply. */
export interface Documented {
  /** Codes with which the handler itself refuses; those of the host are known. */
  refusals?: readonly ErrorCode[];
  /** Which key the call needs, where that is more than a scope. */
  guard?: string;
  /** Media type of a body that has no schema: a page, a stream. */
  produces?: string;
  /** Headers of the good replies, with what they say. */
  replyHeaders?: Record<string, string>;
  requestExamples?: Record<string, { summary: string; value: unknown }>;
  /** One example of a reply's body, by status. */
  replyExamples?: Record<number, unknown>;
}

export interface HttpFunction<N extends readonly Need[] = readonly Need[], P = Schema | undefined, Q = Schema | undefined, B = Schema | undefined> extends Common<N> {
  kind: "http";
  route: Route;
  /**
   * A scope of the caller's key; `any` asks for a key and leaves the rest to the handler, `public` asks for no key, `service` for the platform's own
   * token and keeps the route off the public gateway.
   */
  scope: Scope | "any" | "public" | "service";
  /**
   * Refuses test keys. A test key lies in scripts and on laptops, so whoever pays expects of it that it costs nothing and harms nothing: it runs
   * tasks, reads, and makes, rotates and revokes test keys. Users, subscriptions, webhooks, configuration, secrets and documents are one for both
   * environments: a change of them would reach the bill, the live keys, or what live work runs with and where its results are sent.
   */
  liveKeyOnly?: true;
  params?: P;
  query?: Q;
  body?: B;
  /** At most this many bytes of body; 64 KiB unless said. */
  maxBodyBytes?: number;
  /** Request headers that the handler reads, for OpenAPI. */
  headers?: Record<string, string>;
  replies: Record<number, Schema | null>;
  documented?: Documented;
  /** What the admission script may look up in the same round trip, read from a body that is not yet trusted (task-submit only). */
  routeHint?(body: unknown): { plugin?: string; command?: string } | undefined;
  handle(args: HttpArguments<N, P, Q, B>): Promise<Reply>;
}

export interface EventArguments<D> {
  data: D;
  event: { id: string; type: string; subject: string; attempt: number; traceparent: string };
  /** Aborted when the host drains; stop at the next safe point and answer `later`. */
  signal: AbortSignal;
}

/** `done` acknowledges; `later` asks for another delivery. */
export type EventOutcome = { outcome: "done" } | { outcome: "later"; retryAfterSec: number };

export interface EventFunction<N extends readonly Need[] = readonly Need[], D extends Schema = Schema> extends Common<N> {
  kind: "event";
  /** CloudEvents `type`. */
  event: string;
  /** The Redis stream it rides on; a trailing `{plugin}` stands for one stream per plugin. */
  stream: string;
  data: D;
  handle(args: EventArguments<v.InferOutput<D>> & Pick<Resources, N[number]>): Promise<EventOutcome>;
}

export interface CronFunction<N extends readonly Need[] = readonly Need[]> extends Common<N> {
  kind: "cron";
  /** Cron with seconds, in UTC. Every run works from what is due, so it may run twice or late. */
  schedule: string;
  run(args: { signal: AbortSignal } & Pick<Resources, N[number]>): Promise<void>;
}

export interface GatewayArguments {
  capability: Capability;
  request: Request;
  params: Record<string, string>;
  info: RequestInfo;
}

/** A door for plugins: it speaks somebody else's protocol, so its handlers return raw responses. */
export interface GatewayFunction<N extends readonly Need[] = readonly Need[]> extends Common<N> {
  kind: "gateway";
  audience: CapabilityAudience;
  routes: Record<Route, (args: GatewayArguments & Pick<Resources, N[number]>) => Promise<Response>>;
  /** Turns a refusal into the error shape of the protocol that this door speaks. */
  refusal?(status: number, code: string, message: string, requestId: string): Response;
  maxBodyBytes: number;
}

export type AnyFunction = HttpFunction | EventFunction | CronFunction | GatewayFunction;

export function http<const N extends readonly Need[], P extends Schema | undefined = undefined, Q extends Schema | undefined = undefined, B extends Schema | undefined = undefined>(
  declaration: Omit<HttpFunction<N, P, Q, B>, "kind">,
): HttpFunction<N, P, Q, B> {
  return { kind: "http", ...declaration };
}

export function event<const N extends readonly Need[], D extends Schema>(declaration: Omit<EventFunction<N, D>, "kind">): EventFunction<N, D> {
  return { kind: "event", ...declaration };
}

export function cron<const N extends readonly Need[]>(declaration: Omit<CronFunction<N>, "kind">): CronFunction<N> {
  return { kind: "cron", ...declaration };
}

export function gateway<const N extends readonly Need[]>(declaration: Omit<GatewayFunction<N>, "kind">): GatewayFunction<N> {
  return { kind: "gateway", ...declaration };
}

export const ok = (body: unknown, headers?: Record<string, string>): Reply => ({ status: 200, body, headers });
export const created = (body: unknown): Reply => ({ status: 201, body });
export const accepted = (body: unknown, headers?: Record<string, string>): Reply => ({ status: 202, body, headers });
export const noContent = (): Reply => ({ status: 204 });
