/** What wakes the cron functions: a PingSource each, or a CronJob each where the cluster has no Knative Eventing. */
import { PingSource } from "@kubernetes-models/knative/sources.knative.dev/v1/PingSource";
import { Cron } from "croner";
import { CronJob } from "kubernetes-models/batch/v1/CronJob";
import type { LoadedFunction } from "../functions.ts";
import { hostOf, labels, NAMESPACE } from "./cluster.ts";
import { container } from "./container.ts";
import { manifest, withKustomization } from "./manifest.ts";
import { timeoutSecOf } from "./services.ts";

interface Job {
  name: string;
  /** With seconds. */
  schedule: string;
  timeoutSec: number;
}

function jobsOf(functions: readonly LoadedFunction[]): Job[] {
  return functions.flatMap((loaded) => {
    if (loaded.fn.kind !== "cron") return [];
    const { schedule, name } = loaded.fn;
    if (schedule.trim().split(/\s+/).length !== 6) throw new Error(`The schedule of ${name} must have six fields, seconds first`);
    return [{ name, schedule, timeoutSec: timeoutSecOf(loaded) }];
  });
}

export function sourceFiles(functions: readonly LoadedFunction[]): Record<string, string> {
  const files: Record<string, string> = {};
  for (const { name, schedule } of jobsOf(functions)) {
    const source = new PingSource({
      metadata: { name, namespace: NAMESPACE, labels: { "app.kubernetes.io/part-of": "aau" } },
      spec: {
        schedule,
        timezone: "UTC",
        contentType: "application/json",
        data: "{}",
        sink: { ref: { apiVersion: "serving.knative.dev/v1", kind: "Service", name, namespace: NAMESPACE } },
      },
    });
    files[`${name}.yaml`] = manifest([source]);
  }
  return withKustomization(files);
}

/** A schedule with seconds as CronJob's, which begins with minutes, and the seconds of such a minute. */
export function splitSchedule(schedule: string): { minutes: string; seconds: number[] } {
  const [seconds = "", ...rest] = schedule.trim().split(/\s+/);
  const minute = new Date("2026-01-01T00:00:00Z");
  const beforeIt = new Date(minute.getTime() - 1000);
  const runs = new Cron(`${seconds} * * * * *`, { timezone: "UTC", paused: true }).nextRuns(60, beforeIt);
  return { minutes: rest.join(" "), seconds: runs.map((run) => (run.getTime() - minute.getTime()) / 1000).filter((second) => second < 60) };
}

/** Runs in the platform's own image, which holds Node and no shell. */
function poster(name: string, seconds: readonly number[], timeoutSec: number): string {
  return [
    `const startedAt = Date.now();`,
    `for (const second of ${JSON.stringify(seconds)}) {`,
    `  await new Promise((resolve) => setTimeout(resolve, startedAt + second * 1000 - Date.now()));`,
    `  try {`,
    `    const reply = await fetch("http://${hostOf(name)}/", { method: "POST", headers: { "content-type": "application/json" }, body: "{}", signal: AbortSignal.timeout(${timeoutSec * 1000}) });`,
    `    if (!reply.ok) throw new Error("answered " + reply.status);`,
    `  } catch (error) {`,
    `    console.error(String(error));`,
    `    process.exitCode = 1;`,
    `  }`,
    `}`,
    "",
  ].join("\n");
}

export function cronJobFiles(functions: readonly LoadedFunction[]): Record<string, string> {
  const files: Record<string, string> = {};
  for (const { name, schedule, timeoutSec } of jobsOf(functions)) {
    const { minutes, seconds } = splitSchedule(schedule);
    const job = new CronJob({
      metadata: { name, namespace: NAMESPACE, labels: labels(name, "job") },
      spec: {
        schedule: minutes,
        timeZone: "Etc/UTC",
        concurrencyPolicy: "Forbid",
        startingDeadlineSeconds: 60,
        successfulJobsHistoryLimit: 1,
        failedJobsHistoryLimit: 3,
        jobTemplate: {
          spec: {
            backoffLimit: 0,
            activeDeadlineSeconds: 60 + timeoutSec,
            ttlSecondsAfterFinished: 600,
            template: {
              metadata: { labels: labels(name, "job") },
              spec: {
                restartPolicy: "Never",
                automountServiceAccountToken: false,
                enableServiceLinks: false,
                containers: [container({ name: "post", args: ["--input-type=module", "--eval", poster(name, seconds, timeoutSec)], env: [], memoryMib: 128 })],
              },
            },
          },
        },
      },
    });
    files[`${name}.yaml`] = manifest([job], ["Every run works from what is due, so a run that is late, missed or made twice does no harm."]);
  }
  return withKustomization(files);
}
