/**
 * Who may talk to whom. Pods of Knative Services hear only Knative's own data path, on queue-proxy's ports and never on the
 * function's, Prometheus apart; plugins may call nothing but the platform's doors, and an egress proxy where their manifest names hosts.
 */

import { NetworkPolicy } from "kubernetes-models/networking.k8s.io/v1/NetworkPolicy";
import type { INetworkPolicyEgressRule } from "kubernetes-models/networking.k8s.io/v1/NetworkPolicyEgressRule";
import type { INetworkPolicyPeer } from "kubernetes-models/networking.k8s.io/v1/NetworkPolicyPeer";
import type { LoadedFunction } from "../functions.ts";
import { DNS, EGRESS_PROXY, KNATIVE_SERVING, KOURIER, MONITORING_NAMESPACE, NAMESPACE, ROLE } from "./cluster.ts";
import { manifest } from "./manifest.ts";

/** queue-proxy: HTTP/1, HTTP/2, and both behind internal TLS; then the autoscaler's and Prometheus' metrics. */
const QUEUE_PROXY = { requests: [8012, 8013, 8112], autoscaler: 9090, metrics: 9091 } as const;
/** Where the Services of Kourier's internal gateway lead to: plain and TLS. */
const KOURIER_PORTS = [8081, 8444] as const;

const tcp = (ports: readonly number[]) => ports.map((port) => ({ protocol: "TCP", port }) as const);

function podsOf(namespace: string, matchLabels?: Record<string, string>): INetworkPolicyPeer {
  return { namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": namespace } }, ...(matchLabels && { podSelector: { matchLabels } }) };
}

const inRoles = (...values: string[]) => ({ matchExpressions: [{ key: ROLE, operator: "In", values }] });

const KNATIVE_INGRESS = [
  { from: [podsOf(KNATIVE_SERVING.namespace, KNATIVE_SERVING.activator), podsOf(KOURIER.namespace, KOURIER.pods)], ports: tcp(QUEUE_PROXY.requests) },
  { from: [podsOf(KNATIVE_SERVING.namespace, KNATIVE_SERVING.autoscaler)], ports: tcp([QUEUE_PROXY.autoscaler]) },
  { from: [podsOf(MONITORING_NAMESPACE)], ports: tcp([QUEUE_PROXY.metrics]) },
];

const PLUGIN_EGRESS: INetworkPolicyEgressRule[] = [
  {
    to: [podsOf(DNS.namespace, DNS.pods)],
    ports: [
      { protocol: "UDP", port: 53 },
      { protocol: "TCP", port: 53 },
    ],
  },
  { to: [podsOf(KOURIER.namespace, KOURIER.pods)], ports: tcp(KOURIER_PORTS) },
];

function egressOfPlugin(name: string, hosts: readonly string[]): NetworkPolicy {
  return new NetworkPolicy({
    metadata: { name: `${name}-egress`, namespace: NAMESPACE, annotations: { "aau.io/egress-hosts": hosts.join(",") } },
    spec: {
      podSelector: { matchLabels: { "app.kubernetes.io/name": name, [ROLE]: "plugin" } },
      policyTypes: ["Egress"],
      egress: [{ to: [{ podSelector: { matchLabels: EGRESS_PROXY.pods } }], ports: tcp([EGRESS_PROXY.port]) }],
    },
  });
}

export function networkPolicies(functions: readonly LoadedFunction[]): string {
  const policies = [
    new NetworkPolicy({ metadata: { name: "default-deny-ingress", namespace: NAMESPACE }, spec: { podSelector: {}, policyTypes: ["Ingress"], ingress: [] } }),
    new NetworkPolicy({
      metadata: { name: "knative-pods", namespace: NAMESPACE },
      spec: { podSelector: inRoles("function", "plugin"), policyTypes: ["Ingress"], ingress: KNATIVE_INGRESS },
    }),
    // Counters are the process's own; through Knative's data path a scrape would count as a request, and keep a function awake. A plugin's
    // work is measured by those who call it.
    new NetworkPolicy({
      metadata: { name: "metrics", namespace: NAMESPACE },
      spec: { podSelector: inRoles("function", "bridge"), policyTypes: ["Ingress"], ingress: [{ from: [podsOf(MONITORING_NAMESPACE)], ports: tcp([8080]) }] },
    }),
    new NetworkPolicy({
      metadata: { name: "plugins-egress", namespace: NAMESPACE },
      spec: { podSelector: inRoles("plugin"), policyTypes: ["Egress"], egress: PLUGIN_EGRESS },
    }),
    ...functions.flatMap(({ fn }) => (fn.kind === "plugin" && fn.manifest.egress_hosts.length > 0 ? [egressOfPlugin(fn.name, fn.manifest.egress_hosts)] : [])),
  ];
  return manifest(policies, ["NetworkPolicy knows no host names: a plugin's hosts stand in an annotation for the egress proxy that lets them through."]);
}
