/**
 * The one public host: a Gateway, and an HTTPRoute for each REST resource that finds the function by method and path. Knative
 * routes by host, so each rule writes the function's name into the host and points at Knative's internal gateway.
 */
import { Gateway } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/Gateway";
import { HTTPRoute } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/HTTPRoute";
import type { IHTTPRouteMatch } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/HTTPRouteMatch";
import type { IHTTPRouteRule } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1/HTTPRouteRule";
import { ReferenceGrant } from "@kubernetes-models/gateway-api/gateway.networking.k8s.io/v1beta1/ReferenceGrant";
import type { Method } from "../../shared/host/declare.ts";
import { isPublic } from "../../shared/host/needs.ts";
import type { LoadedFunction } from "../functions.ts";
import { GATEWAY, GATEWAY_CLASS, hostOf, KOURIER, labels, NAMESPACE, TLS_SECRET } from "./cluster.ts";
import { manifest, withKustomization } from "./manifest.ts";
import { timeoutSecOf } from "./services.ts";

const MAX_RULES = 16;

/**
 * Headers that mean something inside and must not come from outside. HTTPRoute knows no patterns; the rest of `ce-*` and
 * `knative-*` means nothing to a function that is no event function.
 */
export const INTERNAL_HEADERS = [
  "aau-llm-token",
  "aau-scoped-token",
  "ce-id",
  "ce-source",
  "ce-specversion",
  "ce-subject",
  "ce-type",
  "k-network-hash",
  "k-network-probe",
  "knative-serving-default-route",
  "knative-serving-namespace",
  "knative-serving-revision",
  "knative-serving-tag",
  "x-tenant-id",
  "x-user-id",
];

const REGEX_NOTE = [
  "Gateway API leaves the dialect of RegularExpression to the implementation; what stands here means the same in RE2 (Envoy",
  "Gateway, Istio, Cilium, kgateway) and PCRE, and is written for engines that match the whole path.",
];

interface PublicRoute {
  name: string;
  method: Method;
  path: string;
  timeoutSec: number;
}

const CATCH_ALL = "/*";

function publicRoute(loaded: LoadedFunction): PublicRoute | null {
  const { fn, name } = loaded;
  if (fn.kind !== "http" || !isPublic(fn)) return null;
  const space = fn.route.indexOf(" ");
  const path = fn.route.slice(space + 1);
  if (path.startsWith("/internal")) throw new Error(`${name} is public and lies under /internal`);
  return { name, method: methodOf(fn.route.slice(0, space)), path, timeoutSec: timeoutSecOf(loaded) };
}

function methodOf(text: string): Method {
  const method = (["GET", "POST", "PUT", "PATCH", "DELETE"] as const).find((known) => known === text);
  if (!method) throw new Error(`${text} is not a method`);
  return method;
}

const parameter = /\{\w+\}/g;
const endsInParameter = (path: string) => /^[^{]*\/\{\w+\}$/.test(path);
const trunk = (path: string) => path.replace(/\/\{\w+\}$/, "");

/**
 * Exact where the path is fixed. A prefix, which every implementation has, where an id ends the path and no other function answers
 * that method further down; implementations disagree on whether a prefix or an expression wins, so they never compete.
 */
function pathMatch({ name, method, path }: PublicRoute, all: readonly PublicRoute[]): IHTTPRouteMatch["path"] {
  if (!path.includes("{")) return { type: "Exact", value: path };
  const competes = (other: PublicRoute) => other.name !== name && other.method === method && other.path.includes("{") && other.path.startsWith(`${trunk(path)}/`);
  if (endsInParameter(path) && !all.some(competes)) return { type: "PathPrefix", value: trunk(path) };
  return { type: "RegularExpression", value: path.replace(/[.+]/g, "\\$&").replace(parameter, "[^/]+") };
}

function rule(name: string, matches: IHTTPRouteMatch[], timeoutSec: number): IHTTPRouteRule {
  return {
    matches,
    filters: [
      { type: "RequestHeaderModifier", requestHeaderModifier: { remove: INTERNAL_HEADERS } },
      { type: "URLRewrite", urlRewrite: { hostname: hostOf(name) } },
    ],
    backendRefs: [{ kind: "Service", name: KOURIER.service, namespace: KOURIER.namespace, port: 80 }],
    // The gateway's own default would cut long polls; the function's time-out is the one that counts.
    timeouts: { request: `${timeoutSec}s` },
  };
}

function httpRoute(name: string, rules: IHTTPRouteRule[]): HTTPRoute {
  return new HTTPRoute({
    metadata: { name, namespace: NAMESPACE, labels: { "app.kubernetes.io/part-of": "aau", "aau.io/public": "true" } },
    spec: { parentRefs: [{ name: GATEWAY, sectionName: "https" }], rules },
  });
}

/** `tasks` of `/v1/tasks/{task_id}`; other paths go by their function. */
function resourceOf({ name, path }: PublicRoute): string {
  return /^\/v1\/([a-z0-9-]+)/.exec(path)?.[1] ?? name;
}

function chunks<T>(items: readonly T[], size: number): T[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, index) => items.slice(index * size, (index + 1) * size));
}

function resourceFiles(routes: readonly PublicRoute[]): Record<string, string> {
  const files: Record<string, string> = {};
  for (const resource of new Set(routes.map(resourceOf))) {
    const members = routes.filter((route) => resourceOf(route) === resource);
    const rules = members.map((route) => rule(route.name, [{ method: route.method, path: pathMatch(route, routes) }], route.timeoutSec));
    const notes = rules.some(({ matches }) => matches?.some(({ path }) => path?.type === "RegularExpression")) ? REGEX_NOTE : [];
    const parts = chunks(rules, MAX_RULES);
    files[`${resource}.yaml`] = manifest(
      parts.map((part, index) => httpRoute(index === 0 ? resource : `${resource}-${index + 1}`, part)),
      notes,
    );
  }
  return files;
}

function gatewayFile(): string {
  const gateway = new Gateway({
    metadata: { name: GATEWAY, namespace: NAMESPACE, labels: labels(GATEWAY, "function") },
    spec: {
      gatewayClassName: GATEWAY_CLASS,
      listeners: [
        { name: "http", port: 80, protocol: "HTTP", allowedRoutes: { namespaces: { from: "Same" } } },
        {
          name: "https",
          port: 443,
          protocol: "HTTPS",
          tls: { mode: "Terminate", certificateRefs: [{ name: TLS_SECRET }] },
          allowedRoutes: { namespaces: { from: "Same" } },
        },
      ],
    },
  });
  const redirect = new HTTPRoute({
    metadata: { name: "redirect-to-https", namespace: NAMESPACE, labels: { "app.kubernetes.io/part-of": "aau" } },
    spec: {
      parentRefs: [{ name: GATEWAY, sectionName: "http" }],
      rules: [{ filters: [{ type: "RequestRedirect", requestRedirect: { scheme: "https", statusCode: 301 } }] }],
    },
  });
  const grant = new ReferenceGrant({
    metadata: { name: "aau-routes", namespace: KOURIER.namespace },
    spec: {
      from: [{ group: "gateway.networking.k8s.io", kind: "HTTPRoute", namespace: NAMESPACE }],
      to: [{ group: "", kind: "Service", name: KOURIER.service }],
    },
  });
  return manifest([gateway, redirect, grant]);
}

export function routeFiles(functions: readonly LoadedFunction[]): Record<string, string> {
  const routes = functions.map(publicRoute).filter((route) => route !== null);
  const catchAll = routes.find(({ path }) => path === CATCH_ALL);
  const files = resourceFiles(routes.filter(({ path }) => path !== CATCH_ALL));
  if (catchAll) {
    // Without a method: some implementations keep a bare "/" for last, and only that.
    const everything = [{ path: { type: "PathPrefix" as const, value: "/" } }];
    files[`${catchAll.name}.yaml`] = manifest([httpRoute(catchAll.name, [rule(catchAll.name, everything, catchAll.timeoutSec)])]);
  }
  return withKustomization({ ...files, "gateway.yaml": gatewayFile() });
}
