/** What the manifests assume of the cluster. Whoever installs it elsewhere changes it here, or by an overlay. */

export const NAMESPACE = "aau";
/** Overlays replace it with a registry, a name and a digest: `images:` in kustomization.yaml. */
export const IMAGE = "aau";
export const CONFIG_MAP = "aau-config";
export const PLUGIN_CONFIG_MAP = "aau-plugins";
export const GATEWAY = "aau";
export const GATEWAY_CLASS = "aau";
export const TLS_SECRET = "aau-tls";

export const KOURIER = { namespace: "kourier-system", service: "kourier-internal", pods: { app: "3scale-kourier-gateway" } } as const;
export const KNATIVE_SERVING = { namespace: "knative-serving", activator: { app: "activator" }, autoscaler: { app: "autoscaler" } } as const;
export const DNS = { namespace: "kube-system", pods: { "k8s-app": "kube-dns" } } as const;
export const MONITORING_NAMESPACE = "monitoring";
/** Our own proxy in our own namespace; it alone knows host names. */
export const EGRESS_PROXY = { pods: { "app.kubernetes.io/name": "egress-proxy" }, port: 3128 } as const;

export const ROLE = "aau.io/role";
export type Role = "function" | "plugin" | "bridge" | "job";

export const labels = (name: string, role: Role): Record<string, string> => ({
  "app.kubernetes.io/name": name,
  "app.kubernetes.io/part-of": "aau",
  [ROLE]: role,
});

/** The name under which Knative's internal gateway knows a function. */
export const hostOf = (name: string): string => `${name}.${NAMESPACE}.svc.cluster.local`;
