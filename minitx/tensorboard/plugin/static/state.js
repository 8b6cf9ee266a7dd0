// The state of the view, one plain object. Everything on the screen follows from it and from the data.

/** Heads count through the layers: layer * heads + head. */
export const START = {
  run: "",
  probe: 0, // index, or -1 for the user's own text
  text: "", // the user's own text
  step: null, // null: the newest, also after newer ones arrive
  head: 0, // the chosen head
  shown: [0], // heads laid over each other in the token views
  view: "both", // both (map and columns) | map | columns | arcs
  score: "previous_token", // colours the survey and is drawn in the chart; "" for none
  sort: false, // sort the survey by that score instead of by layer
  first: true, // draw attention to the first token in the token views
  links: true, // draw the probe's labelled links
  token: null, // the pinned token: {query, key}, one of them may be null
  compare: false,
  other: { run: null, step: null, head: null }, // the second pattern; null means the same as the first
};

export const VIEWS = { both: "Both", map: "Map", columns: "Columns", arcs: "Line" };

/** The state as a query string, with only the values that differ from the start. */
export function toLink(state) {
  const link = new URLSearchParams();
  const put = (name, value, start) => {
    if (value !== null && String(value) !== String(start)) link.set(name, String(value));
  };
  for (const name of ["run", "text", "view", "score"]) put(name, state[name], START[name]);
  for (const name of ["probe", "step", "head"]) put(name, state[name], START[name]);
  for (const name of ["sort", "first", "links", "compare"]) put(name, Number(state[name]), Number(START[name]));
  put("shown", state.shown.join("."), "0");
  if (state.token) link.set("token", `${state.token.query ?? ""}.${state.token.key ?? ""}`);
  if (state.compare) for (const name of ["run", "step", "head"]) put(`other_${name}`, state.other[name], null);
  return link.toString();
}

/** A link → the changes it makes to the state. Invalid values are left out. */
export function fromLink(text) {
  const link = new URLSearchParams(text);
  const changes = {};
  const whole = (value) => (value !== null && /^-?\d{1,12}$/.test(value) ? Number(value) : null);
  for (const name of ["run", "text", "score"]) if (link.has(name)) changes[name] = link.get(name);
  for (const name of ["probe", "step", "head"]) {
    if (whole(link.get(name)) !== null) changes[name] = whole(link.get(name));
  }
  for (const name of ["sort", "first", "links", "compare"]) {
    if (link.has(name)) changes[name] = link.get(name) === "1";
  }
  if (Object.hasOwn(VIEWS, link.get("view") ?? "")) changes.view = link.get("view");
  const shown = (link.get("shown") ?? "").split(".").map(whole).filter((head) => head !== null && head >= 0);
  if (shown.length) changes.shown = shown.slice(0, 64);
  else if (changes.head) changes.shown = [changes.head];
  if (link.has("token")) {
    const [query, key] = link.get("token").split(".").map(whole);
    if ((query ?? key ?? null) !== null) changes.token = { query: query ?? null, key: key ?? null };
  }
  const other = { run: link.get("other_run"), step: whole(link.get("other_step")), head: whole(link.get("other_head")) };
  if (changes.compare) changes.other = other;
  return changes;
}

/** The entry of sorted `numbers` nearest to `wanted`, or the last if that is null; null if `numbers` is empty. */
export function nearestOf(numbers, wanted) {
  if (!numbers.length) return null;
  if (wanted === null) return numbers[numbers.length - 1];
  return numbers.reduce((best, one) => (Math.abs(one - wanted) < Math.abs(best - wanted) ? one : best));
}

/** The chosen head and the shown heads, limited to `count` heads. */
export function headsWithin({ head, shown }, count) {
  const chosen = Math.min(Math.max(0, head), count - 1);
  const existing = shown.filter((one) => one < count);
  return { head: chosen, shown: existing.length ? existing : [chosen] };
}

/** Heads in the order of the survey: by layer, or by score from the greatest down. */
export function headOrder(count, scores, sort) {
  const order = Array.from({ length: count }, (_, head) => head);
  if (sort && scores) order.sort((a, b) => (scores[b] ?? -Infinity) - (scores[a] ?? -Infinity) || a - b);
  return order;
}

/** "layer 1, head 3", or "1·3" in short. */
export function headName(head, headsPerLayer, short = false) {
  const [layer, number] = [Math.floor(head / headsPerLayer), head % headsPerLayer];
  return short ? `${layer}·${number}` : `layer ${layer}, head ${number}`;
}

/** A score's name in plain words. */
export function scoreTitle(name) {
  return name.replaceAll("_", " ");
}

/** Whether a score is the attention along one kind of relationship in the tales. */
export function isOfTales(name) {
  return name.startsWith("tales_");
}

/** What hovering over a score explains. */
export function meaning(name) {
  return MEANINGS[name] ?? (isOfTales(name) ? "attention to the word that decides the next one, in held-out tales" : "");
}

/** The meaning of every score, equal to the descriptions in minitx/heads/scores.py. */
export const MEANINGS = {
  entropy: "spread of the attention in nats: exp of it is how many keys the head mixes",
  distance: "tokens between the query and what it attends to, on average",
  current_token: "attention to the query's own position",
  previous_token: "attention to the position just before the query",
  first_token: "attention to the first position, where idle heads rest",
  duplicate_token: "attention to earlier occurrences of the query's token, where it has any",
  first_mention: "attention to the first occurrence of the query's token, where it is a repeat",
  induction: "attention to what came right after earlier occurrences of the query's token, where it has any",
  importance: "how fast the loss changes, in nats per token, as the head's output is scaled: 0 for one that does nothing",
};

/**
 * [places, hasMiddle]: the place of every head's score in a table of colours, from 0 to 1, null without a score, and
 * whether the table has a middle. Colours go from the least score to the greatest. Importance starts at 0 instead, and
 * if any score is below 0, then 0 is in the middle.
 */
export function scorePlaces(name, values) {
  const known = values.filter((value) => value !== null);
  const [least, greatest] = [Math.min(...known), Math.max(...known)];
  const hasMiddle = least < 0;
  const reach = Math.max(-least, greatest);
  const [low, high] = hasMiddle ? [-reach, reach] : [name === "importance" ? 0 : least, greatest];
  const equal = name === "importance" ? 0 : 0.5;
  const place = (value) => (high > low ? (value - low) / (high - low) : equal);
  return [values.map((value) => (value === null ? null : place(value))), hasMiddle];
}

/** A weight or score in few characters. */
export function figure(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size > 0 && size < 0.00005) return value.toExponential(0);
  return value.toFixed(size >= 10 ? 1 : size >= 0.1 || size === 0 ? 2 : size >= 0.01 ? 3 : 4);
}
