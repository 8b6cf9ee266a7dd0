// A view as a link: the state as a query string, and back. A new entry of the state is a line of FIELDS.

import { START } from "./state.js";

const asWhole = (text) => (/^-?\d{1,12}$/.test(text) ? Number(text) : undefined);
const asHead = (text) => (/^\d{1,12}$/.test(text) ? Number(text) : undefined);
const asList = (text) => text.split(".").map(asHead).filter((head) => head !== undefined).slice(0, 256);
const asPair = (text) => {
  const [query, key] = text.split(".").map(asWhole);
  return (query ?? key) === undefined ? undefined : { query: query ?? null, key: key ?? null };
};
const asAxes = (text) => {
  const [x, y] = text.split(".");
  return x && y ? { x, y } : undefined;
};

/** Each kind of value as [its text in a link, the value of a text or undefined]. */
const KINDS = {
  text: [String, (text) => text],
  whole: [String, asWhole],
  flag: [(value) => String(Number(value)), (text) => text === "1"],
  head: [String, asHead],
  heads: [(value) => value.join("."), asList],
  how: [String, (text) => (text === "mean" ? text : undefined)],
  axes: [({ x, y }) => `${x}.${y}`, asAxes],
  place: [({ query, key }) => `${query ?? ""}.${key ?? ""}`, asPair],
};
const FIELDS = {
  run: "text",
  text: "text",
  view: "text",
  score: "text",
  measured: "text",
  units: "text",
  scatter: "axes",
  probe: "whole",
  step: "whole",
  head: "head",
  sort: "flag",
  first: "flag",
  links: "flag",
  incoming: "flag",
  together: "flag",
  compare: "flag",
  shown: "heads",
  token: "place",
  off: "heads",
  how: "how",
  rank: "flag",
};

/** The state as a query string, with only the values that differ from the start. */
export function toLink(state) {
  const link = new URLSearchParams();
  for (const [name, kind] of Object.entries(FIELDS)) {
    const isStart = JSON.stringify(state[name]) === JSON.stringify(START[name]);
    const isAway = name === "text" && state.probe >= 0; // the user's own text, while another is on view
    if (!isStart && !isAway && state[name] !== null) link.set(name, KINDS[kind][0](state[name]));
  }
  for (const [name, value] of Object.entries(state.compare ? state.other : {})) {
    if (value !== null) link.set(`other_${name}`, String(value));
  }
  return link.toString();
}

/** A link → the changes it makes to the state. Invalid values are left out. */
export function fromLink(text) {
  const link = new URLSearchParams(text);
  const changes = {};
  for (const [name, kind] of Object.entries(FIELDS)) {
    const value = link.has(name) ? KINDS[kind][1](link.get(name)) : undefined;
    if (value !== undefined) changes[name] = value;
  }
  if (changes.head !== undefined && !changes.shown?.length) changes.shown = [changes.head];
  if (changes.compare) changes.other = { run: link.get("other_run"), step: asWhole(link.get("other_step") ?? "") ?? null, head: asHead(link.get("other_head") ?? "") ?? null };
  return changes;
}
