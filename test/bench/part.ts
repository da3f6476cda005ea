import type { Stage } from "./stage.ts";

/** One lettered part of the bench. It prints as it goes, and returns what was lost; nothing lost is an empty list. */
export interface Part {
  letter: string;
  title: string;
  run(stage: Stage, print: (text: string) => void): Promise<string[]>;
}
