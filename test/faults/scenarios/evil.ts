/** Plugins that do wrong in every way that a process can, beside tasks of others that must not notice. */
import { publicId } from "../../../shared/ids.ts";
import { EVIL, type EvilKind, evilManifest, startEvil } from "../../evil/kinds.ts";
import { during, type Scenario, type ScenarioTools } from "./scenario.ts";

/** Processes of evil plugins at a time. */
const LANES = 3;

/** One kind's process, and a task that meets it. */
async function meet(tools: ScenarioTools, evil: EvilKind): Promise<void> {
  const pod = await startEvil(evil);
  try {
    const manifest = evilManifest(evil.kind);
    await tools.platform.addPlugin(manifest, pod.url);
    const { rows } = await tools.platform.look.query<{ id: string }>("SELECT id FROM tasks ORDER BY id DESC LIMIT 1");
    await tools.send(1, () => ({
      plugin: manifest.name,
      // One of them answers in the name of the task that it is told of.
      directives: `beside ${publicId("task", rows[0]?.id ?? "")}`,
      deserves: evil.error ? { status: ["failed"], code: [evil.error.code], cause: ["plugin"] } : { status: ["success"] },
    }));
    await tools.platform.look.query("UPDATE plugins SET status = 'retired' WHERE name = $1", [manifest.name]);
  } finally {
    await pod.stop();
  }
}

export const EVIL_SCENARIOS: readonly Scenario[] = [
  {
    id: "F-21",
    title: `${EVIL.length} plugins that crash, hang, loop, flood and lie, one way each`,
    isShort: true,
    async run(tools, count) {
      const executors = [tools.platform.processes["task-execute-1"], tools.platform.processes["task-execute-2"]];
      const restarts = () => executors.reduce((sum, executor) => sum + executor.restarts, 0);
      const before = restarts();
      const kinds = [...EVIL];
      const lane = async () => {
        for (let evil = kinds.shift(); evil; evil = kinds.shift()) await meet(tools, evil);
      };
      await during(
        tools,
        tools.send(Math.max(count - EVIL.length, 1), () => ({}), 2),
        () => Promise.all(Array.from({ length: LANES }, lane)),
      );
      tools.levels.push({ what: "executors that evil plugins ended", before: 0, after: restarts() - before, limit: 0 });
    },
  },
];
