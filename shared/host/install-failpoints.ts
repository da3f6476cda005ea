/**
 * Arms failpoints from `AAU_FP`, for test builds only: `name:action[@probability],…` with the actions `kill` (SIGKILL), `throw`,
 * `hang`, `delay=ms` and `block=ms` (of the whole event loop). A point given with `#n` acts on its n-th hit only.
 */
const SPEC = /^([a-z_.]+):(kill|throw|hang|(?:delay|block)=\d+)(?:@(\d(?:\.\d+)?))?(?:#(\d+))?$/;

export function installFailpoints(text: string | undefined, random: () => number = Math.random): void {
  const armed = new Map<string, { action: string; probability: number; onHit: number | null; hits: number }>();
  for (const part of (text ?? "").split(",").filter(Boolean)) {
    const match = SPEC.exec(part.trim());
    if (!match) throw new Error(`AAU_FP: ${part} is not name:action[@probability][#hit]`);
    armed.set(match[1] ?? "", { action: match[2] ?? "", probability: Number(match[3] ?? 1), onHit: match[4] ? Number(match[4]) : null, hits: 0 });
  }
  if (armed.size === 0) return;
  globalThis.aauFailpoint = async (name) => {
    const point = armed.get(name);
    if (!point) return;
    point.hits += 1;
    if (point.onHit !== null ? point.hits !== point.onHit : random() >= point.probability) return;
    process.stderr.write(`failpoint ${name} ${point.action}\n`);
    if (point.action === "kill") process.kill(process.pid, "SIGKILL");
    if (point.action === "throw") throw new Error(`failpoint ${name}`);
    if (point.action === "hang") await new Promise(() => {});
    if (point.action.startsWith("block=")) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, Number(point.action.slice(6)));
    if (point.action.startsWith("delay=")) await new Promise((resolve) => setTimeout(resolve, Number(point.action.slice(6))));
  };
}
