// The units of a text, words or tokens, as places in the text that the model reads.

/** The last token of the unit of `probe` that `focus` names, the query first; null if it names none. */
export function lastTokenOf(probe, focus) {
  const unit = focus?.query ?? focus?.key ?? null;
  return unit === null || unit >= probe.seq ? null : probe.spanOf(unit)[1] - 1;
}

/** The token of the pinned unit; the last one of the text if none is pinned. */
export function pinnedPosition(probe, { token }) {
  return lastTokenOf(probe, token) ?? probe.inTokens.seq - 1;
}
