/** One Knative Service for each function and each plugin. */
import { Service } from "@kubernetes-models/knative/serving.knative.dev/v1/Service";
import type { IEnvVar } from "kubernetes-models/v1/EnvVar";
import type { Scale } from "../../shared/host/declare.ts";
import type { LoadedFunction } from "../functions.ts";
import { labels, NAMESPACE, type Role } from "./cluster.ts";
import { container } from "./container.ts";
import { envOf, pluginEnv, variablesOf } from "./environment.ts";
import { manifest, withKustomization } from "./manifest.ts";

const DEFAULT_TIMEOUT_SEC = 60;
/** Knative answers 504 for a request that is silent for this long, unless `responseStartTimeoutSeconds` says otherwise. */
const SILENCE_SEC = 300;
const MAX_TIMEOUT_SEC = 600;
const MIN_TIMEOUT_SEC = 45;
/** A manifest says nothing of scale: a plugin waits for models most of its time, so that one instance holds many runs. */
const PLUGIN = { scale: { min: 0, max: 10, concurrency: 32 }, memoryMib: 512, marginSec: 60 } as const;

interface Workload {
  name: string;
  role: Role;
  component: string;
  scale: Scale;
  timeoutSec: number;
  memoryMib?: number;
  env: IEnvVar[];
}

/** How long Knative lets one call of this function take. */
export function timeoutSecOf({ fn }: LoadedFunction): number {
  if (fn.kind !== "plugin") return fn.timeoutSec ?? DEFAULT_TIMEOUT_SEC;
  return Math.min(MAX_TIMEOUT_SEC, Math.max(MIN_TIMEOUT_SEC, fn.manifest.timeout_seconds + PLUGIN.marginSec));
}

async function workloadOf(loaded: LoadedFunction): Promise<Workload> {
  const { name, fn } = loaded;
  const timeoutSec = timeoutSecOf(loaded);
  if (fn.kind === "plugin") return { name, role: "plugin", component: fn.kind, scale: PLUGIN.scale, memoryMib: PLUGIN.memoryMib, timeoutSec, env: pluginEnv() };
  return { name, role: "function", component: fn.kind, scale: fn.scale, memoryMib: fn.memoryMib, timeoutSec, env: envOf(await variablesOf(fn)) };
}

function serviceOf({ name, role, component, scale, timeoutSec, memoryMib, env }: Workload): Service {
  return new Service({
    metadata: {
      name,
      namespace: NAMESPACE,
      labels: { ...labels(name, role), "app.kubernetes.io/component": component, "networking.knative.dev/visibility": "cluster-local" },
    },
    spec: {
      template: {
        metadata: {
          labels: { ...labels(name, role), "app.kubernetes.io/component": component },
          annotations: { "autoscaling.knative.dev/min-scale": String(scale.min), "autoscaling.knative.dev/max-scale": String(scale.max) },
        },
        spec: {
          containerConcurrency: scale.concurrency,
          timeoutSeconds: timeoutSec,
          ...(timeoutSec > SILENCE_SEC && { responseStartTimeoutSeconds: timeoutSec }),
          automountServiceAccountToken: false,
          enableServiceLinks: false,
          containers: [
            {
              ...container({ name: "function", args: [`/app/functions/${name}/index.mjs`], env, memoryMib }),
              ports: [{ containerPort: 8080 }],
              // Without a period queue-proxy probes every 50 ms at start, which is what makes a cold start short.
              readinessProbe: { httpGet: { path: "/health/readiness", port: 8080 } },
              livenessProbe: { httpGet: { path: "/health/liveness", port: 8080 }, periodSeconds: 10, timeoutSeconds: 2, failureThreshold: 3 },
            },
          ],
        },
      },
    },
  });
}

export async function serviceFiles(functions: readonly LoadedFunction[]): Promise<Record<string, string>> {
  const files: Record<string, string> = {};
  for (const loaded of functions) files[`${loaded.name}.yaml`] = manifest([serviceOf(await workloadOf(loaded))]);
  return withKustomization(files);
}
