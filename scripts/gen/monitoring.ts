/** The same rules and scrapes for a cluster with the Prometheus operator; the plain files of knative/monitoring are the source. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { parse } from "yaml";
import { ROOT } from "../functions.ts";
import { MONITORING_NAMESPACE, NAMESPACE, ROLE } from "./cluster.ts";
import { kustomization, manifest, type Resource } from "./manifest.ts";

const Rules = v.object({ groups: v.array(v.looseObject({ name: v.string() })) });

/** The tests hold these two kinds against the operator's own schemas, where they are there to be read. */
function resource(kind: "PrometheusRule" | "PodMonitor", name: string, spec: unknown): Resource {
  const value = { apiVersion: "monitoring.coreos.com/v1", kind, metadata: { name, namespace: MONITORING_NAMESPACE, labels: { "app.kubernetes.io/part-of": "aau" } }, spec };
  return { ...value, validate() {}, toJSON: () => value };
}

export async function prometheusOperatorFiles(): Promise<Record<string, string>> {
  const { groups } = v.parse(Rules, parse(await readFile(join(ROOT, "knative/monitoring/rules.yml"), "utf8")));
  const podMonitor = resource("PodMonitor", "aau", {
    namespaceSelector: { matchNames: [NAMESPACE] },
    selector: { matchExpressions: [{ key: ROLE, operator: "In", values: ["function", "bridge"] }] },
    podMetricsEndpoints: [
      {
        portNumber: 8080,
        path: "/metrics",
        interval: "15s",
        relabelings: [
          // The function's own container; queue-proxy is beside it.
          { sourceLabels: ["__meta_kubernetes_pod_container_name"], regex: "queue-proxy", action: "drop" },
          { sourceLabels: ["__meta_kubernetes_pod_label_app_kubernetes_io_name"], targetLabel: "function_name" },
        ],
      },
    ],
  });
  return {
    "prometheus-rule.yaml": manifest([resource("PrometheusRule", "aau", { groups })], ["From knative/monitoring/rules.yml."]),
    "pod-monitor.yaml": manifest([podMonitor], ["Functions are scraped in their pods: a request through Knative's data path would count as one."]),
    "kustomization.yaml": kustomization(["pod-monitor.yaml", "prometheus-rule.yaml"]),
  };
}
