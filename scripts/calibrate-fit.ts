/** Fits the logistic of `decide` on labelled commands, and chooses the two thresholds. Pure and deterministic. */
import type { CommandScores } from "../shared/routing/capability-index.ts";
import { type RoutingWeights, routingFeatures } from "../shared/routing/decide.ts";

/** One command against one catalogue: the whole one, or a part of it in which the command may have become foreign. */
export interface Sample {
  readonly scores: CommandScores;
  /** null: nothing in this catalogue fits. */
  readonly wanted: string | null;
  readonly weight: number;
  /** Samples of the same command stay together when folds are made. */
  readonly command: number;
}

const ROUNDS = 40;
const RIDGE = 1e-5;
const FOLDS = 5;
/** At most this share of all commands may go to a wrong plugin, in catalogues of every size: a wrong route is an execution that is paid for nothing. */
const WRONG_ROUTES = 0.02;
/** SPEC 14.1: recall above 95 %. */
const KEPT = 0.95;

export function fitRouting(samples: readonly Sample[]): { weights: RoutingWeights; chainThreshold: number; confidenceMin: number } {
  const judged = crossValidated(samples);
  return { weights: fitWeights(samples), chainThreshold: chooseChainThreshold(judged), confidenceMin: chooseConfidenceMin(judged) };
}

interface Judged {
  readonly sample: Sample;
  readonly probability: number;
}

/** Each command is judged by weights that never saw it; thresholds chosen on seen commands would promise too much. */
function crossValidated(samples: readonly Sample[]): Judged[] {
  return Array.from({ length: FOLDS }, (_, fold) => {
    const weights = fitWeights(samples.filter((sample) => sample.command % FOLDS !== fold));
    return samples.filter((sample) => sample.command % FOLDS === fold).map((sample) => ({ sample, probability: probabilityOf(sample, weights) }));
  }).flat();
}

/** The lowest line above which few enough of the routes are wrong, in large catalogues and small. */
function chooseChainThreshold(judged: readonly Judged[]): number {
  const sizes = new Map<number, Judged[]>();
  for (const one of judged) {
    const size = one.sample.scores.plugins.length;
    const alike = sizes.get(size) ?? [];
    sizes.set(size, alike);
    alike.push(one);
  }
  const wrong = (line: number, alike: readonly Judged[]) => alike.filter(({ sample, probability }) => probability >= line && !isRight(sample)).length / alike.length;
  const grid = Array.from({ length: 50 }, (_, i) => (50 + i) / 100);
  return grid.find((line) => [...sizes.values()].every((alike) => wrong(line, alike) <= WRONG_ROUTES)) ?? 0.99;
}

/** The highest line that still lets enough of the commands through that a plugin could answer. */
function chooseConfidenceMin(judged: readonly Judged[]): number {
  const answerable = judged.filter(({ sample }) => sample.wanted !== null).sort((a, b) => a.probability - b.probability);
  const all = answerable.reduce((sum, { sample }) => sum + sample.weight, 0);
  let lost = 0;
  for (const { sample, probability } of answerable) {
    lost += sample.weight;
    if (lost > (1 - KEPT) * all) return Math.max(0.01, Math.floor(probability * 100) / 100);
  }
  return 0.01;
}

function isRight(sample: Sample): boolean {
  return sample.wanted !== null && sample.scores.plugins[0]?.plugin === sample.wanted;
}

function featuresOf({ scores }: Sample): number[] {
  const [first, second] = scores.plugins;
  const { strength, margin, background } = routingFeatures(first?.score ?? 0, second?.score, scores.background);
  return [1, strength, margin, background];
}

function probabilityOf(sample: Sample, weights: RoutingWeights): number {
  const w = [weights.bias, weights.strength, weights.margin, weights.background];
  return logistic(dot(featuresOf(sample), w));
}

/** Newton's method on the weighted log-likelihood with a whiff of ridge; four numbers, so it converges in a few rounds. */
function fitWeights(samples: readonly Sample[]): RoutingWeights {
  const points = samples.map((sample) => ({ x: featuresOf(sample), y: isRight(sample) ? 1 : 0, weight: sample.weight }));
  const total = points.reduce((sum, point) => sum + point.weight, 0);
  let w = [0, 0, 0, 0];
  for (let round = 0; round < ROUNDS; round++) {
    const gradient = w.map((value, i) => (i === 0 ? 0 : -RIDGE * value));
    const hessian: number[][] = w.map((_, i) => w.map((__, j) => (i === j && i > 0 ? RIDGE : 0)));
    for (const { x, y, weight } of points) {
      const p = logistic(dot(x, w));
      x.forEach((xi, i) => {
        gradient[i] = (gradient[i] ?? 0) + (weight / total) * (y - p) * xi;
        const row = hessian[i];
        if (row) hessian[i] = row.map((value, j) => value + (weight / total) * p * (1 - p) * xi * (x[j] ?? 0));
      });
    }
    const step = solve(hessian, gradient);
    w = w.map((value, i) => value + (step[i] ?? 0));
  }
  const [bias = 0, strength = 0, margin = 0, background = 0] = w.map((value) => Math.round(value * 1000) / 1000);
  return { bias, strength, margin, background };
}

/** Gauss–Jordan; the matrix is positive definite, so no pivoting is needed. */
function solve(matrix: readonly number[][], right: readonly number[]): number[] {
  const rows = matrix.map((row, i) => [...row, right[i] ?? 0]);
  rows.forEach((pivotRow, i) => {
    const pivot = pivotRow[i] ?? 1;
    const scaled = pivotRow.map((x) => x / pivot);
    rows[i] = scaled;
    rows.forEach((row, k) => {
      if (k !== i) rows[k] = row.map((x, j) => x - (row[i] ?? 0) * (scaled[j] ?? 0));
    });
  });
  return rows.map((row) => row.at(-1) ?? 0);
}

function dot(a: readonly number[], b: readonly number[]): number {
  return a.reduce((sum, x, i) => sum + x * (b[i] ?? 0), 0);
}

function logistic(z: number): number {
  return 1 / (1 + Math.exp(-z));
}
