/** The figures of `npm run calibrate`, as plain text. */
import { decide, type RoutingThresholds } from "../shared/routing/decide.ts";
import type { Trial } from "./calibrate-trials.ts";

export interface Outcome {
  /** Commands that a plugin of the catalogue answers, and those that none does. */
  readonly own: number;
  readonly foreign: number;
  readonly top1: number;
  readonly ownDirectRight: number;
  readonly ownDirectWrong: number;
  readonly ownUnsure: number;
  readonly ownRefused: number;
  readonly foreignDirect: number;
  readonly foreignUnsure: number;
  readonly foreignRefused: number;
}

export function outcomeOf(trials: readonly Trial[], thresholds: RoutingThresholds): Outcome {
  const judged = trials.map(({ wanted, scores }) => ({ wanted, best: scores.plugins[0]?.plugin, decision: decide(scores, thresholds) }));
  const count = (isCounted: (trial: (typeof judged)[number]) => boolean) => judged.filter(isCounted).length;
  return {
    own: count(({ wanted }) => wanted !== null),
    foreign: count(({ wanted }) => wanted === null),
    top1: count(({ wanted, best }) => wanted !== null && wanted === best),
    ownDirectRight: count(({ wanted, decision }) => decision.kind === "direct" && decision.plugin === wanted),
    ownDirectWrong: count(({ wanted, decision }) => wanted !== null && decision.kind === "direct" && decision.plugin !== wanted),
    ownUnsure: count(({ wanted, decision }) => wanted !== null && decision.kind === "unsure"),
    ownRefused: count(({ wanted, decision }) => wanted !== null && decision.kind === "none"),
    foreignDirect: count(({ wanted, decision }) => wanted === null && decision.kind === "direct"),
    foreignUnsure: count(({ wanted, decision }) => wanted === null && decision.kind === "unsure"),
    foreignRefused: count(({ wanted, decision }) => wanted === null && decision.kind === "none"),
  };
}

const COLUMNS = ["top-1", "direct", "right if direct", "wrong route", "to a model", "own refused", "foreign refused"];
const LABEL_WIDTH = 26;

export function outcomeHeader(): string {
  return `${"".padEnd(LABEL_WIDTH)}  own  foreign${COLUMNS.map((column) => `  ${column.padStart(width(column))}`).join("")}`;
}

/** `direct`, `own refused`: of the own commands. `right if direct`: of all direct routes. `wrong route`, `to a model`: of all commands. */
export function outcomeLine(label: string, trials: readonly Trial[], thresholds: RoutingThresholds): string {
  const o = outcomeOf(trials, thresholds);
  const wrong = o.ownDirectWrong + o.foreignDirect;
  const cells = [
    share(o.top1, o.own),
    share(o.ownDirectRight + o.ownDirectWrong, o.own),
    share(o.ownDirectRight, o.ownDirectRight + wrong),
    share(wrong, trials.length),
    share(o.ownUnsure + o.foreignUnsure, trials.length),
    share(o.ownRefused, o.own),
    share(o.foreignRefused, o.foreign),
  ];
  const columns = COLUMNS.map((column, i) => `  ${(cells[i] ?? "").padStart(width(column))}`).join("");
  return `${label.padEnd(LABEL_WIDTH)}${String(o.own).padStart(5)}${String(o.foreign).padStart(9)}${columns}`;
}

const LINES_SHOWN = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3];

/** What other lines would do: fewer questions are bought with wrong routes. Shown, not chosen by. */
export function tradeOff(trials: readonly Trial[], thresholds: RoutingThresholds): string {
  const rows = LINES_SHOWN.map((chainThreshold) => {
    const o = outcomeOf(trials, { ...thresholds, chainThreshold, confidenceMin: Math.min(thresholds.confidenceMin, chainThreshold) });
    const cells = [
      share(o.ownUnsure + o.foreignUnsure, trials.length),
      share(o.ownDirectWrong + o.foreignDirect, trials.length),
      share(o.ownDirectRight + o.ownDirectWrong, o.own),
    ];
    return `${chainThreshold.toFixed(2).padStart(15)}${cells.map((cell) => cell.padStart(14)).join("")}`;
  });
  return [`CHAIN_THRESHOLD${["to a model", "wrong route", "direct"].map((head) => head.padStart(14)).join("")}`, ...rows].join("\n");
}

/** Rows: what was wanted. Columns: the best-scored plugin, then what `decide` made of it. */
export function confusionTable(trials: readonly Trial[], names: readonly string[], thresholds: RoutingThresholds): string {
  const lines = [...names, null].map((wanted) => {
    const row = trials.filter((trial) => trial.wanted === wanted);
    const best = names.map((name) => row.filter(({ scores }) => scores.plugins[0]?.plugin === name).length);
    const kinds = (["direct", "unsure", "none"] as const).map((kind) => row.filter(({ scores }) => decide(scores, thresholds).kind === kind).length);
    return `${(wanted ?? "(none fits)").padEnd(18)}${[...best, ...kinds].map((n) => (n === 0 ? "·" : String(n)).padStart(8)).join("")}`;
  });
  const heads = [...names.map((name) => name.slice(0, 7)), "direct", "unsure", "none"];
  return [`${"wanted \\ best".padEnd(18)}${heads.map((head) => head.padStart(8)).join("")}`, ...lines].join("\n");
}

/** A share in percent with its 95 % interval (Wilson), as half its width. */
function share(part: number, all: number): string {
  if (all === 0) return "–";
  const z = 1.96;
  const p = part / all;
  const half = (z / (1 + z ** 2 / all)) * Math.sqrt((p * (1 - p)) / all + z ** 2 / (4 * all ** 2));
  return `${(100 * p).toFixed(1)} ±${(100 * half).toFixed(1)}`;
}

function width(column: string): number {
  return Math.max(column.length, 11);
}
