// What a run opens with, where the address names none: a labelled link or a score, the layer, its heads, and a word.

import { pairIndex, weightAt } from "./snapshot.js";
import { layerOf } from "../state/state.js";
import { strengthOf, strongestScores, tellingScores } from "../state/telling.js";

/** Scores of a head that looks at no other word. */
const IDLE = ["first_token", "current_token"];
const FOLLOWED = 0.5; // of a word's attention

/**
 * {head, shown}: the head that follows the opening link, else the one whose score stands furthest
 * above uniform attention; with its layer.
 */
export function openingHeads(snapshot) {
  const [probe] = snapshot.probes;
  const opening = clearLink(snapshot);
  const heads = Array.from({ length: snapshot.layers * snapshot.heads }, (_, head) => head).filter((head) => probe.has(head));
  const strength = (head) => strengthOf(snapshot, openingScore(snapshot, head), head) ?? -1;
  const head = opening ? opening.head : heads.reduce((best, one) => (strength(one) > strength(best) ? one : best), heads[0] ?? 0);
  const shown = layerOf(head, snapshot.heads).filter((one) => probe.has(one));
  return { head, shown: shown.length ? shown : [head] };
}

/** The name of the score that tells most about a head, where it looks at other words; "" without scores. */
export function openingScore(scored, head) {
  const names = tellingScores(scored, head, Infinity);
  return names.find((name) => !IDLE.includes(name)) ?? names[0] ?? Object.keys(scored.scores)[0] ?? "";
}

/** The names of the scores of which some head stands out most, where it looks at other words, the clearest first. */
export const clearestScores = (scored) => strongestScores(scored).filter((name) => !IDLE.includes(name));

/** The first of them; "" without scores. */
export const clearestScore = (scored) => clearestScores(scored)[0] ?? Object.keys(scored.scores)[0] ?? "";

/** The opening link: the first that a head gives half of its attention, as in `followedLinks`; undefined without one. */
export const clearLink = (snapshot) => followedLinks(snapshot).find(({ weight }) => weight >= FOLLOWED);

/** [{number, head, weight}]: the labelled links, each with the head that follows it most; none of a pattern not loaded. */
export function followedLinks({ layers, heads, probes: [probe] }) {
  return probe.links.map((link, number) => ({ number, ...follower(probe, link, layers * heads) })).filter(({ head }) => head !== null);
}

/** {head, weight}: the head of `count` that follows a link most; null where no whole pattern is loaded. */
export function follower(probe, link, count) {
  let best = { head: null, weight: -1 };
  for (let head = 0; head < count; head++) {
    const weight = probe.has(head) && probe.whole(head) ? linkWeight(probe, head, link) : -1;
    if (weight > best.weight) best = { head, weight };
  }
  return best;
}

/** The weight from a query of a link to all its keys, averaged over its queries, as minitx/heads/links.py measures it. */
export function linkWeight(probe, head, { query, key }) {
  let sum = 0;
  for (let q = query[0]; q < query[1]; q++) for (let k = key[0]; k < key[1]; k++) sum += weightAt(probe.whole(head), q, k);
  return sum / (query[1] - query[0]);
}

/**
 * The query shown while nobody points: that of the opening link, by its number, else the one with the sharpest attention
 * to a token that is neither the first nor itself, in any of `heads`. {query, key: null}
 */
export function openingPlace(probe, heads, link) {
  if (probe.links[link]) return { query: probe.links[link].query[1] - 1, key: null };
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
