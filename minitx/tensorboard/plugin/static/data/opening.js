// Which head and layer a run opens with, where the link names none.

import { layerOf } from "../state/state.js";

const UNCLASSIFIED = "unclassified";

/** {head, shown}: all heads of the layer whose patterns differ most, and the first of them with a role. */
export function openingHeads(snapshot) {
  const probe = snapshot.probes[0];
  let [best, most] = [[], -1];
  for (let layer = 0; layer < snapshot.layers; layer++) {
    const heads = layerOf(layer * snapshot.heads, snapshot.heads).filter((head) => probe.has(head));
    const apart = meanDistance(heads.map((head) => probe.small(head)));
    if (heads.length && apart > most) [best, most] = [heads, apart];
  }
  const withRole = best.find((head) => snapshot.roles[head] && snapshot.roles[head] !== UNCLASSIFIED);
  return { head: withRole ?? best[0] ?? 0, shown: best.length ? best : [0] };
}

/** The mean distance of packed patterns, over all pairs; 0 for one. */
function meanDistance(patterns) {
  let [sum, pairs] = [0, 0];
  for (let one = 0; one < patterns.length; one++) {
    for (let other = 0; other < one; other++, pairs++) {
      for (let at = 0; at < patterns[one].length; at++) sum += Math.abs(patterns[one][at] - patterns[other][at]);
    }
  }
  return pairs ? sum / pairs : 0;
}
