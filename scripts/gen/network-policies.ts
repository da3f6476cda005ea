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

const TO_DNS: INetworkPolicyEgressRule = {
  to: [podsOf(DNS.namespace, DNS.pods)],
  ports: [
    { protocol: "UDP", port: 53 },
    { protocol: "TCP", port: 53 },
  ],
};

const PLUGIN_EGRESS: INetworkPolicyEgressRule[] = [TO_DNS, { to: [podsOf(KOURIER.namespace, KOURIER.pods)], ports: tcp(KOURIER_PORTS) }];

/** What stands behind shared/sdk/src/public-address.ts, should it ever fail: no route to an inner address on a receiver's port. */
const INTERNET = [
  {
    cidr: "0.0.0.0/0",
    except: [
      "0.0.0.0/8",
      "10.0.0.0/8",
      "100.64.0.0/10",
      "127.0.0.0/8",
      "169.254.0.0/16",
      "172.16.0.0/12",
      "192.0.0.0/24",
      "192.168.0.0/16",
      "198.18.0.0/15",
      "224.0.0.0/4",
      "240.0.0.0/4",
    ],
  },
  { cidr: "2000::/3", except: ["2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"] },
];
/** PostgreSQL and Redis stand anywhere, by their usual ports; an overlay names others. */
const DATA_PORTS = [5432, 6379];
/** The ports that a URL may name. */
const RECEIVER_PORTS = [443, 8443];

function egressOfSender(name: string): NetworkPolicy {
  return new NetworkPolicy({
    metadata: { name: `${name}-egress`, namespace: NAMESPACE },
    spec: {
      podSelector: { matchLabels: { "app.kubernetes.io/name": name, [ROLE]: "function" } },
      policyTypes: ["Egress"],
      egress: [TO_DNS, { ports: tcp(DATA_PORTS) }, { to: INTERNET.map((ipBlock) => ({ ipBlock })), ports: tcp(RECEIVER_PORTS) }],
    },
  });
}

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
    // Those that only read a URL, to store it, call nobody.
    ...functions.flatMap(({ fn }) => (fn.kind === "event" && fn.needs.includes("egress") ? [egressOfSender(fn.name)] : [])),
    ...functions.flatMap(({ fn }) => (fn.kind === "plugin" && fn.manifest.egress_hosts.length > 0 ? [egressOfPlugin(fn.name, fn.manifest.egress_hosts)] : [])),
  ];
  return manifest(policies, ["NetworkPolicy knows no host names: a plugin's hosts stand in an annotation for the egress proxy that lets them through."]);
}
