// The state of the view, one plain object. Everything on the screen follows from it and from the data.

/** Heads count through the layers: layer * heads + head. */
export const START = {
  run: "", // "": the newest
  probe: 0, // index of the text, or -1 for the user's own
  text: "", // the user's own text
  step: null, // null: the newest, also after newer ones arrive
  head: null, // the chosen head; null until one is, see opening.js
  shown: [], // heads on view together
  view: "sentence", // a name of views/views.js
  score: null, // colours the survey and is drawn in the chart; null until one is chosen, see opening.js; "" for none
  measured: "validation", // text that heads are scored on: "validation", or "text" for the shown one
  units: "words", // or "tokens": what rows and columns of patterns stand for, where words are cut into pieces
  scatter: { x: null, y: null }, // the scores of the scatter's axes; null: the strongest
  sort: false, // sort the survey by that score instead of by layer
  first: true, // draw attention to the first token, the attention sink
  links: true, // draw the labelled links of the text
  incoming: false, // the sentence shades what attends to a word instead of what it attends to
  together: false, // the sentence shows all heads in one line
  token: null, // the pinned place: {query, key}, one of them may be null
  off: [], // in the view "what_if", the heads that are taken out
  how: "zero", // what stands in for them: "zero" or "mean"
  rank: false, // whether that view colours the heads by the loss without each
  compare: false,
  other: { run: null, step: null, head: null }, // the second pattern; null means the same as the first
};

/** The entry of sorted `numbers` nearest to `wanted`, or the last if that is null; null if `numbers` is empty. */
export function nearestOf(numbers, wanted) {
  if (!numbers.length) return null;
  if (wanted === null) return numbers[numbers.length - 1];
  return numbers.reduce((best, one) => (Math.abs(one - wanted) < Math.abs(best - wanted) ? one : best));
}

/** The chosen head and the shown heads, limited to `count` heads. */
export function headsWithin({ head, shown }, count) {
  const chosen = Math.min(Math.max(0, head ?? 0), count - 1);
  const existing = shown.filter((one) => one >= 0 && one < count);
  return { head: chosen, shown: existing.length ? existing : [chosen] };
}

/** The heads of the layer that `head` is in. */
export function layerOf(head, headsPerLayer) {
  const start = head - (head % headsPerLayer);
  return Array.from({ length: headsPerLayer }, (_, number) => start + number);
}

/** The heads to show after `head` is chosen: those of one layer stay, to another layer they move along. */
export function shownAfter(head, { shown, head: before }, headsPerLayer) {
  if (shown.length < 2) return [head];
  const layer = layerOf(head, headsPerLayer);
  const old = layerOf(before, headsPerLayer);
  if (shown.some((one) => !old.includes(one))) return [head];
  return [...new Set([...shown.map((one) => layer[one % headsPerLayer]), head])];
}

/** Heads in the order of the survey: by layer, or by score from the greatest down. */
export function headOrder(count, scores, sort) {
  const order = Array.from({ length: count }, (_, head) => head);
  if (sort && scores) order.sort((a, b) => (scores[b] ?? -Infinity) - (scores[a] ?? -Infinity) || a - b);
  return order;
}
