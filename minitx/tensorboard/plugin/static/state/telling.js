// Which of a head's scores tell most about it.

const NOT_SHARES = ["entropy", "distance", "importance"];

/** How far a share of the attention stands above uniform attention: 0 there, 1 for all of the attention, or null. */
export function strengthOf({ scores, chance }, name, head) {
  const [value, even] = [scores[name]?.[head] ?? null, chance[name] ?? null];
  if (NOT_SHARES.includes(name) || value === null || even === null || even >= 1) return null;
  return (value - even) / (1 - even);
}

/** The names of the `most` scores that stand furthest above uniform attention, the greatest first. */
export function tellingScores(snapshot, head, most) {
  const strengths = Object.keys(snapshot.scores).map((name) => [name, strengthOf(snapshot, name, head)]);
  const known = strengths.filter(([, strength]) => strength !== null).sort(([, a], [, b]) => b - a);
  return known.slice(0, most).map(([name]) => name);
}

/** The names of all scores, first those of which some head stands furthest above uniform attention. */
export function strongestScores(scored) {
  const best = (name) => Math.max(-1, ...scored.scores[name].map((_, head) => strengthOf(scored, name, head) ?? -1));
  const strengths = Object.keys(scored.scores).map((name) => [name, best(name)]);
  return strengths.sort(([, a], [, b]) => b - a).map(([name]) => name);
}
