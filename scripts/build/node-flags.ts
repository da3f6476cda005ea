/**
 * How Node is started for a bundle: by the image's entry point, the local stack and the bench alike. A code cache is good for the flags that
 * it was written with, and for no others.
 */
export const NODE_FLAGS: readonly string[] = [
  // A pod has about one processor: threads that help the collector there only take turns with what they are to help.
  "--single-threaded-gc",
  // In MiB. What a task needs lives for a tenth of a second: in a small nursery much of it is moved twice and then outlives its use.
  "--max-semi-space-size=32",
];
