/**
 * Named places where a test may stop this process dead: `FAILPOINT: await failpoint("settle.before_commit");`. The label lets the
 * build drop the whole statement, so production bundles hold neither the call nor the name.
 */
declare global {
  var aauFailpoint: ((name: string) => Promise<void>) | undefined;
}

export async function failpoint(name: string): Promise<void> {
  await globalThis.aauFailpoint?.(name);
}
