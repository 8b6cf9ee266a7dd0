// The attention of heads from one place of a text to another, computed from their patterns, and its chart over the steps.

import { weightAt } from "./snapshot.js";
import { uniformWeight } from "../state/question.js";

/**
 * {weight, place} in a packed pattern: the mean over the query's tokens of the sum over the key's. Without a key it is the
 * largest of `others`, [[start, end], …], and its place among them; null without any.
 */
export function attentionOf(packed, { query, key, others = [] }) {
  const weightOf = ([start, end]) => {
    let sum = 0;
    for (let row = query[0]; row < query[1]; row++) {
      for (let column = start; column < end; column++) sum += weightAt(packed, row, column);
    }
    return sum / (query[1] - query[0]);
  };
  if (key) return { weight: weightOf(key), place: null };
  let best = { weight: null, place: null };
  for (const [place, span] of others.entries()) {
    const weight = weightOf(span);
    if (best.weight === null || weight > best.weight) best = { weight, place };
  }
  return best;
}

/** The weight of every head of a snapshot with one probe; null where a head was removed or its pattern is not loaded. */
export function attentionOfHeads({ count, probes }, question) {
  const probe = probes[0].inTokens;
  return Array.from({ length: count }, (_, head) => (probe.has(head) && probe.whole(head) ? attentionOf(probe.whole(head), question).weight : null));
}

/**
 * `data` with the chart of its question: {steps, values, chance, isAll}. A server reads long runs in parts: until `isAll`,
 * each call adds one. An own text has the shown step alone.
 */
export async function withQuestion(source, data) {
  const { run, probe, info, first, firstStep, question } = data;
  let [read, fault] = [{ steps: [], values: [], isAll: true }, data.fault];
  try {
    if (probe >= 0) read = await source.attention(run, probe, question, info.steps);
  } catch (error) {
    fault ||= error.message;
  }
  const byStep = new Map(read.steps.map((step, at) => [step, read.values[at]]));
  const here = attentionOfHeads(first, question);
  const isWhole = here.every((weight, head) => weight !== null || !first.probes[0].has(head));
  if (!byStep.get(firstStep) && (isWhole || read.isAll)) byStep.set(firstStep, here);
  const steps = [...new Set([...info.steps, firstStep])].sort((a, b) => a - b);
  const chance = uniformWeight(question);
  const chart = { steps, values: steps.map((step) => byStep.get(step) ?? null), chance: steps.map(() => chance), isAll: read.isAll };
  return { ...data, chart, fault };
}
