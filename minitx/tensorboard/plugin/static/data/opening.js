// What a run opens with, where the link names none: the layer, its heads, and the word whose attention is shown.

import { pairCount, pairIndex, weightAt } from "./snapshot.js";
import { layerOf } from "../state/state.js";

const UNCLASSIFIED = "unclassified";

/**
 * {head, shown}: all heads of the layer whose heads do the most different things; of them the one that follows the
 * first labelled link most, else the first with a role.
 */
export function openingHeads(snapshot) {
  const probe = snapshot.probes[0];
  let [best, most] = [[], -1];
  for (let layer = 0; layer < snapshot.layers; layer++) {
    const heads = layerOf(layer * snapshot.heads, snapshot.heads).filter((head) => probe.has(head));
    const apart = meanDistance(heads.map((head) => probe.small(head)), probe.side);
    if (heads.length && apart > most) [best, most] = [heads, apart];
  }
  const [link] = probe.links;
  const along = (head) => linkWeight(probe, head, link);
  const follower = link && best.every((head) => probe.whole(head)) && best.reduce((one, head) => (along(head) > along(one) ? head : one), best[0]);
  const withRole = best.find((head) => snapshot.roles[head] && snapshot.roles[head] !== UNCLASSIFIED);
  return { head: follower || (withRole ?? best[0] ?? 0), shown: best.length ? best : [0] };
}

/**
 * The mean over all pairs of patterns of |p − q|², the squared distance of a query's weights, averaged over queries. It is
 * great only where both are sharp and look elsewhere: two heads that spread their attention differ by little.
 */
export function meanDistance(patterns, side) {
  const weights = patterns.map((packed) => Float32Array.from(packed, (level) => (level / 255) ** 2));
  let [sum, pairs] = [0, 0];
  for (let one = 0; one < weights.length; one++) {
    for (let other = 0; other < one; other++, pairs++) {
      for (let at = 0; at < pairCount(side); at++) sum += (weights[one][at] - weights[other][at]) ** 2;
    }
  }
  return pairs ? sum / pairs / side : 0;
}

/** The weight from a query of a link to all its keys, averaged over its queries, as minitx/heads/links.py measures it. */
export function linkWeight(probe, head, { query, key }) {
  let sum = 0;
  for (let q = query[0]; q < query[1]; q++) for (let k = key[0]; k < key[1]; k++) sum += weightAt(probe.whole(head), q, k);
  return sum / (query[1] - query[0]);
}

/**
 * The query shown while nobody points: that of the first labelled link, else the one with the sharpest attention to a
 * token that is neither the first nor itself, in any of `heads`. {query, key: null}
 */
export function openingPlace(probe, heads) {
  if (probe.links.length) return { query: probe.links[0].query[1] - 1, key: null };
  let [query, most] = [probe.seq - 1, -1];
  for (const head of heads) {
    const packed = probe.whole(head);
    for (let at = 2; at < probe.seq; at++) {
      for (let key = 1; key < at; key++) {
        if (packed[pairIndex(at, key)] > most) [query, most] = [at, packed[pairIndex(at, key)]];
      }
    }
  }
  return { query, key: null };
}
