// From state and data to what each stage shows, and to the text about the place under the pointer.

import { linkEnds, shownLinks } from "../draw/links.js";
import { otherHead } from "../data/gather.js";
import { HOW_WORDS } from "../data/words.js";
import { strongest, weightAt } from "../data/snapshot.js";
import { signed } from "./stage.js";
import { figure, headName } from "../state/scores.js";
import { unitName } from "../state/units.js";
import { headColour } from "../draw/theme.js";

/** What a view shows, and what one can do there. */
const TITLES = {
  map: ["Rows: tokens. Columns: what they attend to.", ""],
  columns: ["", "Point at a token to see only its lines."],
  arcs: ["Arcs lead back to what a token attends to. ", "Point at a token to see only its arcs."],
};

/**
 * {contents, note}: the content of every stage, {title, help, view, probe, links, heads: [{head, name, colour, packed}],
 * against}, and a sentence if something cannot be shown. A comparison adds the second pattern and, if both have the same
 * tokens, the difference.
 */
export function stageContents({ state, data, theme, pinned, focus }) {
  const { first, second } = data;
  const linksOf = (content) => (state.links ? linksIn(content, content.view === "map" ? pinned : focus, data.question) : []);
  const view = state.view === "both" && second ? "map" : state.view;
  const contents = (view === "both" ? ["map", "columns"] : [view]).map((one) => contentOf(first, state.head, state.shown, one, theme));
  let note = missing(first, state.head, data.run);
  if (second) {
    const head = otherHead(data.first, data.second, state);
    const isSameShape = second.layers === first.layers && second.heads === first.heads;
    const heads = state.other.head !== null || !isSameShape ? [head] : state.shown;
    Object.assign(contents[0], { title: sideTitle(data, data.run, data.firstStep, state.head, first), help: "" });
    contents.push({ ...contentOf(second, head, heads, view, theme), help: "", title: sideTitle(data, data.otherRun, data.secondStep, head, second) });
    const [a, b] = [first.probes[0], second.probes[0]];
    const isSame = a.seq === b.seq && a.tokens.every((token, index) => token === b.tokens[index]);
    const packed = [wholeOf(a, state.head), wholeOf(b, head)];
    note ||= missing(second, head, data.otherRun);
    if (isSame && packed.every(Boolean)) {
      contents.push({ ...contents[0], view: "map", heads: [{ head: state.head, packed: packed[0] }], against: packed[1], title: "Difference: the second minus the first" });
    } else if (!isSame) {
      note = "The two runs cut this text into different tokens, so there is no difference to show.";
    }
  }
  return { contents: contents.map((content) => ({ ...content, links: linksOf(content) })), note };
}

function contentOf(snapshot, head, shown, view, theme) {
  const probe = { ...snapshot.probes[0], tokens: snapshot.probes[0].labels };
  const heads = (view === "map" ? [head] : shown).map((one) => ({ head: one, name: headName(one, snapshot.heads, true), colour: headColour(theme, one, snapshot.heads), packed: wholeOf(probe, one) }));
  const [title, help] = TITLES[view].map((text) => text.replaceAll("token", unitName(probe)));
  return { title, help, view, probe, chosen: wholeOf(probe, head), heads: heads.filter((one) => one.packed) };
}

/** The links of a content, with the weights of the chosen head; in a difference with those of neither. */
function linksIn({ probe, chosen, against }, focus, question) {
  const asked = question && question.link !== null ? question.link : null;
  return shownLinks(probe, against ? null : chosen, focus, asked);
}

/** The whole pattern of a head; null if the head was removed or its pattern is not loaded. */
const wholeOf = (probe, head) => (probe.has(head) ? probe.whole(head) : null);

/** A sentence if pruning has removed a head, else "". */
function missing(snapshot, head, run) {
  const [probe, name] = [snapshot.probes[0], headName(head, snapshot.heads)];
  if (!probe.has(head)) return `The run ${run} has no ${name}: it was removed by pruning.`;
  return probe.whole(head) ? "" : `This file has no room for the whole pattern of ${name}: save it again with that head on view.`;
}

function sideTitle(data, run, step, head, snapshot) {
  return [data.runs.length > 1 ? run : "", `step ${step}`, headName(head, snapshot.heads)].filter(Boolean).join(" · ");
}

/** Lines of text about the place under the pointer. */
export function describeFocus({ probe, heads, against, view }, { query, key }) {
  const how = probe.units === "words" ? [HOW_WORDS] : [];
  const ends = probe.links.map((link) => [link.name, linkEnds(link, { query, key })]);
  const links = ends.filter(([, at]) => (view === "map" ? at.every(Boolean) : at.some(Boolean))).map(([name]) => name);
  if (view === "map") {
    const weight = weightAt(heads[0].packed, query, key);
    const pair = `${probe.tokens[query]} → ${probe.tokens[key]}`;
    const places = `${unitName(probe)} ${query} to ${unitName(probe)} ${key}`;
    if (!against) return [pair, figure(weight), places, ...how, ...links];
    const other = weightAt(against, query, key);
    return [pair, signed(other - weight), `${figure(weight)} and ${figure(other)}`, ...links];
  }
  const lines = [probe.tokens[query ?? key]];
  for (const { name, packed } of heads.slice(0, 6)) {
    const list = (partners) => partners.map(({ token, weight }) => `${probe.tokens[token]} ${figure(weight)}`).join(", ");
    if (query !== null) lines.push(`${name} attends to ${list(strongest(packed, probe.seq, { query }, 3))}`);
    if (key !== null) lines.push(`${name} is read by ${list(strongest(packed, probe.seq, { key }, 3))}`);
  }
  return [...lines, ...how, ...links];
}

/** The focus after an arrow key, [down, right]. Without a focus the first key press goes to the last query. */
export function movedFocus(focus, [down, right], { view, probe: { seq } }) {
  if (!focus) return { query: seq - 1, key: { map: 0, columns: null, arcs: seq - 1 }[view] };
  const { query, key } = focus;
  const within = (value, most) => Math.min(most, Math.max(0, value));
  if (view === "map") {
    const row = within((query ?? 0) + down, seq - 1);
    return { query: row, key: within((key ?? 0) + right, row) };
  }
  if (view === "arcs") {
    const token = within((query ?? key) + right + down, seq - 1);
    return { query: token, key: token };
  }
  const token = within((query ?? key) + down, seq - 1);
  const isLeft = right ? right < 0 : query !== null;
  return isLeft ? { query: token, key: null } : { query: null, key: token };
}
