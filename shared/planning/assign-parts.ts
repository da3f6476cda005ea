/** From a command's parts and their scores to steps: which plugin answers which part, and which parts are one step's. Pure. */
import type { Candidate } from "../routing/decide.ts";
import type { ScoredText } from "../routing/score-texts.ts";
import type { SplitCommand } from "./split-intents.ts";

/** A step before it has an id and a version. */
export interface DraftStep {
  readonly plugin: string;
  readonly command: string;
  /** Positions of earlier drafts. */
  readonly needs: readonly number[];
}

/** What the scores say of one part. */
export interface RatedPart {
  readonly text: string;
  /** The plugin that answers it; null where several may. */
  readonly plugin: string | null;
  /** Best first: those that may answer it. Empty where none does, and the part goes with its neighbour. */
  readonly candidates: readonly Candidate[];
}

/** Below it, a part is more likely a wish about its neighbour's work ("and keep it short") than a task for another plugin. */
const LIKELY = 0.5;

/**
 * A part has a plugin of its own only where its own words lead there beyond doubt. One that nobody else is likely to
 * answer belongs to its neighbour.
 */
export function rateParts(scored: readonly ScoredText[]): RatedPart[] {
  const sure = scored.map(({ decision }) => (decision.kind === "direct" ? decision.plugin : null));
  const rated: RatedPart[] = [];
  for (const [i, { text, decision, lines }] of scored.entries()) {
    const own = sure[i] ?? null;
    const neighbour = rated[i - 1]?.plugin ?? sure.slice(i + 1).find((plugin) => plugin !== null) ?? null;
    const possible = decision.candidates.filter(({ plugin, probability }) => (own === null ? probability >= lines.confidenceMin : plugin === own));
    const isNeighbours = possible.every(({ plugin, probability }) => plugin === neighbour || probability < LIKELY);
    const plugin = own ?? (isNeighbours ? neighbour : null);
    rated.push({ text, plugin, candidates: own === null && plugin !== null ? [] : possible });
  }
  return rated;
}

/** `plugins[i]` answers part `i`. Parts side by side that go to one plugin are one step. */
export function toSteps({ intents, context, material }: SplitCommand, plugins: readonly string[]): DraftStep[] {
  const steps: { plugin: string; texts: string[]; needs: Set<number> }[] = [];
  const stepOf: number[] = [];
  for (const [i, { text, needs }] of intents.entries()) {
    const plugin = plugins[i] ?? "";
    let step = steps.at(-1);
    if (step?.plugin !== plugin) {
      step = { plugin, texts: [], needs: new Set() };
      steps.push(step);
    }
    step.texts.push(text);
    const own = steps.length - 1;
    for (const need of needs) {
      const earlier = stepOf[need];
      if (earlier !== undefined && earlier !== own) step.needs.add(earlier);
    }
    stepOf.push(own);
  }
  return steps.map(({ plugin, texts, needs }) => ({
    plugin,
    command: [context, texts.join("\n"), material].filter((text) => text !== "").join("\n\n"),
    needs: [...needs].sort((a, b) => a - b),
  }));
}
