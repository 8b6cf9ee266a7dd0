// The attention of heads from one place of a text to another, computed from their patterns, and its chart over the steps.

import { weightAt } from "./snapshot.js";
import { uniformWeight } from "../state/question.js";

/**
 * {weight, key} of a packed pattern: the mean over the query tokens of the sum over the key tokens. Without a key it is the
 * largest mean for one token before the query, the first left out; null where there is none.
 */
export function attentionOf(packed, { query, key }) {
  const count = query[1] - query[0];
  const meanTo = (token) => {
    let sum = 0;
    for (let at = query[0]; at < query[1]; at++) sum += weightAt(packed, at, token);
    return sum / count;
  };
  if (!key) {
    let best = { weight: null, key: null };
    for (let token = 1; token < query[0]; token++) {
      const weight = meanTo(token);
      if (best.weight === null || weight > best.weight) best = { weight, key: token };
    }
    return best;
  }
  let weight = 0;
  for (let token = key[0]; token < key[1]; token++) weight += meanTo(token);
  return { weight, key: key[0] };
}

/** The weight of every head of a snapshot with one probe; null where a head was removed or its pattern is not loaded. */
export function attentionOfHeads({ count, probes: [probe] }, question) {
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
