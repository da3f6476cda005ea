import { defineConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

/** The longest first: started last, on a machine that has not seen the suite before, it would have one worker wait for the other. */
class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const isLongest = ({ moduleId }: TestSpecification) => moduleId.includes("/test/e2e/");
    return (await super.sort(files)).sort((a, b) => Number(isLongest(b)) - Number(isLongest(a)));
  }
}

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    exclude: ["test/faults/**", "test/bench/**"],
    globalSetup: ["test/support/global-setup.ts"],
    // Real servers and real processes: a slow machine gets time, a hanging test does not get for ever.
    testTimeout: 60_000,
    hookTimeout: 120_000,
    pool: "forks",
    maxWorkers: 2,
    // One load of the modules a worker, not one a file: a third of the time of the whole suite. What a file starts it also stops.
    isolate: false,
    sequence: { sequencer: LongestFirst },
  },
});
