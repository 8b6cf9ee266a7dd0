// What is asked of a model about the tokens of a text: patterns, predictions, and those without some heads. The answers
// are those of minitx/heads/record.py, predictions.py and what_if.py.

import { embed, throughBlocks, unembed } from "./transformer.js";

const LIKELIEST = 5;

/** {patterns: [packed], predictions}: of every head, and what the model predicts. */
export function look(model, tokenizer, tokens) {
  const patterns = [];
  const residual = throughBlocks(model, embed(model, tokens), { record: (_, pattern) => patterns.push(pattern) });
  return { patterns, predictions: predictNext(model, tokenizer, tokens, residual) };
}

/** The predictions before and after `heads` are taken out. */
export function without(model, tokenizer, tokens, { heads, how }) {
  const embedded = embed(model, tokens);
  const standIn = how === "mean" ? meanOutputs(model, embedded) : null;
  const [before, after] = [[], heads].map((off) => predictNext(model, tokenizer, tokens, throughBlocks(model, embedded, { off, standIn })));
  return { before, after };
}

/** The loss as it is and without each head alone: the sum over the span `positions`, in nats. */
export function ranking(model, tokenizer, tokens, { positions: [start, end], how }) {
  if (tokens.length < 2) throw new Error("The text has a single token, so nothing follows that could be predicted.");
  const { n_layer, n_head, d_model } = model.config;
  let residual = embed(model, tokens);
  const standIn = how === "mean" ? meanOutputs(model, residual) : null;
  const lossOf = (after) => {
    const rows = logProbabilities(model, after.slice(start * d_model, end * d_model));
    return rows.reduce((sum, row, at) => sum - row[tokens[start + at + 1]], 0);
  };
  const found = [];
  for (let first = 0; first < n_layer; first++) {
    for (let head = 0; head < n_head; head++) found.push(lossOf(throughBlocks(model, residual, { first, off: [first * n_head + head], standIn })));
    residual = throughBlocks(model, residual, { first, end: first + 1 });
  }
  return { loss: lossOf(residual), without: found };
}

/** Head → (d_head), its mean output over the tokens. */
function meanOutputs(model, embedded) {
  const { n_head, d_head } = model.config;
  const means = new Map();
  throughBlocks(model, embedded, {
    record: (flat, _, outputs) => {
      const [width, start] = [n_head * d_head, (flat % n_head) * d_head];
      const seq = outputs.length / width;
      const meanAt = (i) => Array.from({ length: seq }, (_, at) => outputs[at * width + start + i]).reduce((a, b) => a + b) / seq;
      means.set(flat, Float32Array.from({ length: d_head }, (_, i) => meanAt(i)));
    },
  });
  return means;
}

/** A row of log-probabilities for each vector of the residual. */
function logProbabilities(model, residual) {
  const logits = unembed(model, residual);
  const seq = residual.length / model.config.d_model;
  const size = logits.length / seq;
  return Array.from({ length: seq }, (_, at) => {
    const row = logits.subarray(at * size, (at + 1) * size);
    const most = row.reduce((a, b) => Math.max(a, b));
    const whole = most + Math.log(row.reduce((sum, logit) => sum + Math.exp(logit - most), 0));
    return row.map((logit) => logit - whole);
  });
}

/** {tokens, probabilities, real, loss} at every position; the last has no real token. */
function predictNext(model, { labelOf }, tokens, residual) {
  const short = (value) => (Number.isFinite(value) ? Number(value.toPrecision(4)) : null);
  const found = { tokens: [], probabilities: [], real: [], loss: [] };
  for (const [at, row] of logProbabilities(model, residual).entries()) {
    const best = [...row.keys()].sort((a, b) => row[b] - row[a]).slice(0, LIKELIEST);
    const [next, isLast] = [tokens[at + 1], at === tokens.length - 1];
    found.tokens.push(best.map(labelOf));
    found.probabilities.push(best.map((token) => short(Math.exp(row[token]))));
    found.real.push(isLast || !best.includes(next) ? null : best.indexOf(next));
    found.loss.push(isLast ? null : short(-row[next]));
  }
  return found;
}
