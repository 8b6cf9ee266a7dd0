// The units of a text, words or tokens, as places in the text that the model reads.

/** "word" or "token". */
export const unitName = ({ units }) => units.slice(0, -1);

/** The units that `view` shows in a state: some views have tokens alone. */
export const unitsIn = ({ units }, view) => (view.showsTokens ? "tokens" : units);

/** The last token of the unit of `probe` that `focus` names, the query first; null if it names none. */
export function lastTokenOf(probe, focus) {
  const unit = focus?.query ?? focus?.key ?? null;
  return unit === null || unit >= probe.seq ? null : probe.spanOf(unit)[1] - 1;
}

/** The token of the pinned unit. If none is pinned, that of the opening link, by its number, or the last of the text. */
export function pinnedPosition(probe, { token }, link) {
  const opening = probe.links[link] ? { query: probe.links[link].query[1] - 1 } : null;
  return lastTokenOf(probe, token) ?? lastTokenOf(probe, opening) ?? probe.inTokens.seq - 1;
}

/** A place of `probe` in other units: a token becomes its word, a word its last token. */
export function placeIn(units, probe, { query, key }) {
  if (units === probe.units || !probe.words.length) return { query, key };
  const wordOf = (token) => probe.words.findLastIndex((start) => start <= token);
  const convert = (unit) => (unit === null ? null : units === "words" ? wordOf(unit) : lastTokenOf(probe, { query: unit }));
  return { query: convert(query), key: convert(key) };
}
