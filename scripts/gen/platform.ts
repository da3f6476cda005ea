/** What is no function: the settings, the bridge, the migrations. */
import { Deployment } from "kubernetes-models/apps/v1/Deployment";
import { Job } from "kubernetes-models/batch/v1/Job";
import { PodDisruptionBudget } from "kubernetes-models/policy/v1/PodDisruptionBudget";
import { ConfigMap } from "kubernetes-models/v1/ConfigMap";
import { Secret } from "kubernetes-models/v1/Secret";
import type { VariableName } from "../../shared/host/config.ts";
import { TRACE_VARIABLES } from "../../shared/host/needs.ts";
import type { LoadedFunction } from "../functions.ts";
import { CONFIG_MAP, hostOf, labels, NAMESPACE, PLUGIN_CONFIG_MAP } from "./cluster.ts";
import { container } from "./container.ts";
import { defaultOf, envOf, isSecret, PLUGIN_VARIABLES, secretName, VARIABLE_NAMES } from "./environment.ts";
import { manifest, withKustomization } from "./manifest.ts";
import { networkPolicies } from "./network-policies.ts";

/** The settings that the bridge reads. */
export const BRIDGE_VARIABLES = [
  "BRIDGE_IN_FLIGHT",
  "DATABASE_DRIVER",
  "DATABASE_URL",
  "DRAIN_MS",
  "FUNCTION_URL",
  "FUNCTION_URLS",
  "LOG_LEVEL",
  "REDIS_URL",
  "SERVICE_TOKEN",
  ...TRACE_VARIABLES,
] as const satisfies VariableName[];
const MIGRATE_VARIABLES = ["DATABASE_DRIVER", "DATABASE_URL", "LOG_LEVEL"] as const satisfies VariableName[];

/** Knative sets it, for functions only. */
const PORT = "PORT";

const POD = {
  automountServiceAccountToken: false,
  enableServiceLinks: false,
  securityContext: { runAsNonRoot: true, seccompProfile: { type: "RuntimeDefault" } },
} as const;

function configFile(): string {
  const settings = VARIABLE_NAMES.filter((name) => !isSecret(name) && name !== PORT);
  const data = Object.fromEntries(
    settings.flatMap((name) => {
      const value = defaultOf(name);
      return value === undefined ? [] : [[name, value]];
    }),
  );
  const unset = settings.filter((name) => defaultOf(name) === undefined);
  return manifest(
    [
      new ConfigMap({ metadata: { name: CONFIG_MAP, namespace: NAMESPACE }, data }),
      new ConfigMap({
        metadata: { name: PLUGIN_CONFIG_MAP, namespace: NAMESPACE },
        data: Object.fromEntries(Object.entries(PLUGIN_VARIABLES).map(([name, fn]) => [name, `http://${hostOf(fn)}`])),
      }),
    ],
    ["The defaults. An overlay patches what differs; a running revision keeps what it was started with.", `May be added: ${unset.join(", ")}.`],
  );
}

/** Not part of any kustomization: it shows the names, and an empty value must never replace a real one. */
export function exampleSecrets(): string {
  const secrets = VARIABLE_NAMES.filter(isSecret).map(
    (name) => new Secret({ metadata: { name: secretName(name), namespace: NAMESPACE }, type: "Opaque", stringData: { [name]: "" } }),
  );
  return manifest(secrets, ["The Secrets that services refer to, each with one key. Fill in and apply once, or let your secret operator make them."]);
}

function bridgeFile(): string {
  const name = "bridge";
  const deployment = new Deployment({
    metadata: { name, namespace: NAMESPACE, labels: labels(name, "bridge") },
    spec: {
      replicas: 2,
      selector: { matchLabels: { "app.kubernetes.io/name": name } },
      strategy: { type: "RollingUpdate", rollingUpdate: { maxUnavailable: 0, maxSurge: 1 } },
      template: {
        metadata: { labels: labels(name, "bridge") },
        spec: {
          ...POD,
          // Longer than DRAIN_MS: it stops reading, and lets go of what is still open without acknowledging it.
          terminationGracePeriodSeconds: 60,
          containers: [
            {
              ...container({ name, args: ["/app/bridge/index.mjs"], env: [{ name: PORT, value: "8080" }, ...envOf(BRIDGE_VARIABLES)] }),
              ports: [{ name: "http", containerPort: 8080 }],
              readinessProbe: { httpGet: { path: "/health/readiness", port: 8080 }, periodSeconds: 5, timeoutSeconds: 2 },
              livenessProbe: { httpGet: { path: "/health/liveness", port: 8080 }, periodSeconds: 10, timeoutSeconds: 2, failureThreshold: 3 },
            },
          ],
        },
      },
    },
  });
  const budget = new PodDisruptionBudget({
    metadata: { name, namespace: NAMESPACE },
    spec: { minAvailable: 1, selector: { matchLabels: { "app.kubernetes.io/name": name } } },
  });
  return manifest([deployment, budget], ["It turns wake-up calls on Redis Streams into CloudEvents. Several may run: each entry goes to one of them."]);
}

const REGISTER_VARIABLES = ["FUNCTION_URL", "FUNCTION_URLS", "LOG_LEVEL", "SERVICE_TOKEN"] as const satisfies VariableName[];

function job(name: string, args: string[], variables: readonly VariableName[]): Job {
  return new Job({
    metadata: { name, namespace: NAMESPACE, labels: labels(name, "job") },
    spec: {
      backoffLimit: 3,
      activeDeadlineSeconds: 900,
      ttlSecondsAfterFinished: 3600,
      template: {
        metadata: { labels: labels(name, "job") },
        spec: { ...POD, restartPolicy: "Never", containers: [container({ name, args, env: envOf(variables) })] },
      },
    },
  });
}

const AGAIN = "A Job's template cannot change: delete the last one before a new image is applied.";

function migrateFile(): string {
  return manifest([job("migrate", ["/app/migrate/index.mjs"], MIGRATE_VARIABLES)], [`Forward only, and safe to run again. ${AGAIN}`]);
}

function registerFile(functions: readonly LoadedFunction[]): string {
  const endpoints = functions.filter(({ kind }) => kind === "plugin").map(({ name }) => `http://${hostOf(name)}`);
  return manifest(
    [job("register", ["/app/register/index.mjs", ...endpoints], REGISTER_VARIABLES)],
    [`Publishes the plugins of this image in the registry; it waits for their services. ${AGAIN}`],
  );
}

export function platformFiles(functions: readonly LoadedFunction[]): Record<string, string> {
  return withKustomization({
    "bridge.yaml": bridgeFile(),
    "config.yaml": configFile(),
    "migrate.yaml": migrateFile(),
    "register.yaml": registerFile(functions),
    "network-policies.yaml": networkPolicies(functions),
  });
}
