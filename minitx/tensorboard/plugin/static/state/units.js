// Between positions of tokens and what the pinned place is counted in: tokens, or words if state.units says so.

/** The position of the pinned token, or of the last token of the pinned word; without one, the last. */
export function pinnedPosition({ seq, words }, { token, units }) {
  const at = token?.query ?? token?.key ?? null;
  if (at === null) return seq - 1;
  const last = units === "words" && words ? (words[at + 1] ?? seq) - 1 : at;
  return Math.min(last, seq - 1);
}

/** The place that the token at `position` belongs to. */
export function unitOf({ words }, { units }, position) {
  return units === "words" && words ? words.findLastIndex((first) => first <= position) : position;
}
