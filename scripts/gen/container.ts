/** The container that every process of the platform runs in. */
import type { IContainer } from "kubernetes-models/v1/Container";
import type { IEnvVar } from "kubernetes-models/v1/EnvVar";
import type { ISecurityContext } from "kubernetes-models/v1/SecurityContext";
import { IMAGE } from "./cluster.ts";

export const DEFAULT_MEMORY_MIB = 256;

/** What the `restricted` Pod Security Standard asks of a container, and a root that nobody can write to. */
const SECURITY: ISecurityContext = {
  runAsNonRoot: true,
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  capabilities: { drop: ["ALL"] },
  seccompProfile: { type: "RuntimeDefault" },
};

export function container({ name, args, env, memoryMib = DEFAULT_MEMORY_MIB }: { name: string; args: string[]; env: IEnvVar[]; memoryMib?: number }): IContainer {
  return {
    name,
    image: IMAGE,
    args,
    env,
    resources: {
      requests: { cpu: "100m", memory: `${Math.ceil(memoryMib / 2)}Mi`, "ephemeral-storage": "16Mi" },
      limits: { cpu: "1", memory: `${memoryMib}Mi`, "ephemeral-storage": "64Mi" },
    },
    securityContext: SECURITY,
  };
}
