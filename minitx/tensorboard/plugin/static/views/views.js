// All views, in the order of their buttons.

import { ARCS_VIEW, BOTH_VIEW, COLUMNS_VIEW, MAP_VIEW } from "./pattern.js";
import { PREDICTIONS_VIEW } from "./predictions.js";
import { SENTENCE_VIEW } from "./sentence.js";

/** Groups of views, [what they are about, views]. */
export const GROUPS = [
  ["Attention", [SENTENCE_VIEW, BOTH_VIEW, MAP_VIEW, COLUMNS_VIEW, ARCS_VIEW]],
  ["Prediction", [PREDICTIONS_VIEW]],
];

/** The view called `name`, or the first. */
export function viewOf(name) {
  const all = GROUPS.flatMap(([, views]) => views);
  return all.find((view) => view.name === name) ?? all[0];
}
