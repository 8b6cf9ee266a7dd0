// All views, in the order of their buttons.

import { BLOCKS_VIEW } from "./blocks.js";
import { EXAMPLES_VIEW } from "./examples.js";
import { ARCS_VIEW, BOTH_VIEW, COLUMNS_VIEW, MAP_VIEW } from "./pattern.js";
import { PREDICTIONS_VIEW } from "./predictions.js";
import { SCATTER_VIEW } from "./scatter.js";
import { SENTENCE_VIEW } from "./sentence.js";
import { WRITES_VIEW } from "./writes.js";
import { WHAT_IF_VIEW } from "./what_if.js";

/** Groups of views, [what they are about, views]. */
export const GROUPS = [
  ["Attention", [SENTENCE_VIEW, BOTH_VIEW, MAP_VIEW, COLUMNS_VIEW, ARCS_VIEW]],
  ["Effect", [PREDICTIONS_VIEW, WHAT_IF_VIEW]],
  ["One head", [WRITES_VIEW, EXAMPLES_VIEW]],
  ["All heads", [SCATTER_VIEW, BLOCKS_VIEW]],
];

/** The view called `name`, or the first. */
export function viewOf(name) {
  const all = GROUPS.flatMap(([, views]) => views);
  return all.find((view) => view.name === name) ?? all[0];
}
