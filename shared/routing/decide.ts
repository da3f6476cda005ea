/** Turns scores into a decision. Cosines of different models are not comparable; the probabilities that come out of here are. */
import type { CommandScores } from "./capability-index.ts";
import { THRESHOLDS } from "./thresholds.ts";

/** A logistic: P(this plugin is the right one) from its strength, its margin over the best rival, and its margin over the background. */
export interface RoutingWeights {
  readonly bias: number;
  readonly strength: number;
  readonly margin: number;
  readonly background: number;
}

export interface DecisionLines {
  /** CHAIN_THRESHOLD: at or above this probability the best plugin is used without asking. */
  readonly chainThreshold: number;
  /** CONFIDENCE_MIN: below this probability nothing fits. */
  readonly confidenceMin: number;
}

export interface RoutingThresholds extends DecisionLines {
  readonly weights: RoutingWeights;
  /** false: estimated, because the model could not be asked; then `npm run calibrate -- --write` with its key gives the real row. */
  readonly measured: boolean;
}

export interface Candidate {
  readonly plugin: string;
  readonly score: number;
  /** 0 to 1: how likely this plugin alone is the right one. */
  readonly probability: number;
}

export type RoutingMethod = "embedding" | "keyword";

/** `candidates` are the best five at most, best first; also where none of them is good enough. */
export type Decision =
  | {
      readonly kind: "direct";
      readonly method: RoutingMethod;
      readonly plugin: string;
      readonly confidence: number;
      readonly candidates: readonly Candidate[];
    }
  | { readonly kind: "unsure" | "none"; readonly method: RoutingMethod; readonly candidates: readonly Candidate[] };

/**
 * The calibrated row of the model, with the operator's own CHAIN_THRESHOLD and CONFIDENCE_MIN where they are set. Throws for a model without a
 * row and for lines that are no probabilities: call it at start, not at the first task.
 */
export function thresholdsFor(model: string, own: { chainThreshold?: number; confidenceMin?: number } = {}): RoutingThresholds {
  const row = Object.hasOwn(THRESHOLDS, model) ? THRESHOLDS[model] : undefined;
  if (row === undefined) throw new Error(`the embedding model ${model} has no routing thresholds: run npm run calibrate -- --write`);
  const chainThreshold = probability("CHAIN_THRESHOLD", own.chainThreshold ?? row.chainThreshold);
  const confidenceMin = probability("CONFIDENCE_MIN", own.confidenceMin ?? row.confidenceMin);
  if (confidenceMin > chainThreshold) throw new RangeError(`CONFIDENCE_MIN (${confidenceMin}) must not be above CHAIN_THRESHOLD (${chainThreshold})`);
  return { ...row, chainThreshold, confidenceMin };
}

function probability(name: string, value: number): number {
  if (!(value >= 0 && value <= 1)) throw new RangeError(`${name} is a probability from 0 to 1, not ${value}`);
  return value;
}

const CONSIDERED = 5;

export function decide(scores: CommandScores, thresholds: RoutingThresholds): Decision {
  return judge(candidatesOf(scores, thresholds.weights), thresholds, "embedding");
}

/** Shared with the keyword fallback: the same two lines through the same probabilities. */
export function judge(candidates: readonly Candidate[], lines: DecisionLines, method: RoutingMethod): Decision {
  const [best, second] = candidates;
  const considered = candidates.slice(0, CONSIDERED);
  if (best === undefined || best.probability < lines.confidenceMin) return { kind: "none", method, candidates: considered };
  // Several above the line are near to each other too, however sure each would be by itself.
  const isAlone = second === undefined || second.probability < lines.chainThreshold;
  if (best.probability >= lines.chainThreshold && isAlone) return { kind: "direct", method, plugin: best.plugin, confidence: best.probability, candidates: considered };
  return { kind: "unsure", method, candidates: considered };
}

function candidatesOf(scores: CommandScores, weights: RoutingWeights): Candidate[] {
  const [first, second] = scores.plugins;
  return scores.plugins.map(({ plugin, score }) => {
    const rival = plugin === first?.plugin ? second?.score : first?.score;
    const { strength, margin, background } = routingFeatures(score, rival, scores.background);
    const z = weights.bias + weights.strength * strength + weights.margin * margin + weights.background * background;
    return { plugin, score, probability: 1 / (1 + Math.exp(-z)) };
  });
}

/**
 * What the logistic reads, all as logarithms: a lead of 0.05 says much at a cosine of 0.1 and little at 0.6. The background competes like a
 * plugin, so that a catalogue of one plugin, which has no second, needs no rule of its own. Exported for `npm run calibrate`.
 */
export function routingFeatures(score: number, rival: number | undefined, background: number): { strength: number; margin: number; background: number } {
  const strength = logCosine(score);
  return { strength, margin: strength - logCosine(Math.max(rival ?? 0, background)), background: strength - logCosine(background) };
}

/** Cosines near and below zero all say "unrelated": the floor keeps their logarithms from growing without bound. */
function logCosine(cosine: number): number {
  return Math.log(Math.max(0, cosine) + 0.05);
}
