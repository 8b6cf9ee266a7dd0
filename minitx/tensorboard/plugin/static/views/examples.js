// The strongest examples of the chosen head: the places in validation text where it attends most sharply, with the words
// around them, and below them a sample from every tenth of the scale.

import { element, onScreen } from "../draw/dom.js";
import { headColour } from "../draw/theme.js";
import { figure, headName } from "../state/scores.js";

/** Tokens shown before and after a query and a key: in the list, and in a line of the histogram. */
const [LISTED, SAMPLED, ALL] = [[6, 3], [3, 1], [Infinity, Infinity]];

export const EXAMPLES_VIEW = {
  name: "examples",
  label: "Examples",
  title: "Where in validation text the chosen head attends most sharply, and a sample of everything else it does",
  showsOne: true,
  load: loadExamples,
  draw: drawExamples,
};

async function loadExamples(source, data, { head }) {
  if (!source.examples) throw new Error("This file holds no examples: see them in TensorBoard.");
  return source.examples(data.run, data.step, head);
}

function drawExamples(root, { state, data, theme, extra }) {
  const isOfHead = extra?.head === state.head;
  root.style.setProperty("--head", headColour(theme, state.head, data.first.heads));
  const total = isOfHead ? extra.counts.reduce((sum, count) => sum + count, 0) : 0;
  if (!total) {
    root.drawn = null;
    const why = isOfHead ? `Step ${extra.step}: this head has no examples.` : data.extraFault || "The examples are loading …";
    root.replaceChildren(element("p", { class: "hint" }, why));
    return;
  }
  const shares = extra.counts.map((count) => count / total);
  const title = examplesTitle(extra, data.step, headName(state.head, data.first.heads));
  if (root.drawn === extra && root.firstChild.firstChild.data === title) return; // opened lines stay open
  root.drawn = extra;
  root.replaceChildren(
    element("h3", {}, title, ...legendOf()),
    element("ol", { class: "strongest" }, ...extra.strongest.map((place) => element("li", {}, weightOf(place), element("p", {}, ...markedWords(place, LISTED))))),
    element("h3", {}, "The same weight at all queries: the share in every tenth of the scale, and a sample. ", onScreen("Click one for more.")),
    element("div", { class: "tenths" }, ...shares.map((share, tenth) => tenthOf(extra, tenth, share, Math.max(...shares))).reverse()),
  );
}

function examplesTitle({ step, scanned }, shownStep, name) {
  const other = step === shownStep ? "" : ` (the nearest to step ${shownStep.toLocaleString("en")} with examples)`;
  return `Step ${step.toLocaleString("en")}${other}, ${scanned.toLocaleString("en")} tokens of validation text: where ${name} attends most sharply, away from the query itself and from the first token. The number is the weight from the `;
}

function legendOf() {
  const [query, key] = [element("span", { class: "query" }, "query"), element("span", { class: "key" }, "key")];
  return [query, " to the ", key, "."];
}

const weightOf = ({ weight }) => element("span", { class: "weight" }, figure(weight));

/** The context of a place as running text, with `before` and `after` tokens around its query and its key. */
function markedWords({ query, key, context }, [before, after]) {
  const isShown = ([at]) => [query, key].some((centre) => at >= centre - before && at <= centre + after);
  const words = [];
  let last = null;
  for (const [at, label] of context.filter(isShown)) {
    const isCut = at !== (last ?? -1) + 1;
    if (isCut) words.push(element("span", { class: "cut" }, last === null ? "… " : " … "));
    const shown = isCut || last === null ? label.replace(/^␣+(?=[^␣])/, "") : label;
    words.push(...markedWord(shown, at === query ? "query" : at === key ? "key" : ""));
    last = at;
  }
  return words;
}

/** A token as text; of a marked one, the space before it stays outside the mark. */
function markedWord(label, kind) {
  const word = label.replace(/^␣+(?=[^␣])/, "");
  const text = (part) => part.replaceAll("␣", " ");
  if (!kind) return [/^<.+>$/.test(label) ? element("span", { class: "cut" }, label) : text(label)];
  const isBlank = /^␣+$/.test(word);
  const shown = !isBlank ? text(word) : word.length > 3 ? `␣×${word.length}` : word;
  return [text(label.slice(0, label.length - word.length)), element("span", { class: kind }, shown)];
}

/** A line of the histogram, which opens into its samples; the bar of the `greatest` share is the longest. */
function tenthOf({ samples }, tenth, share, greatest) {
  const places = samples[tenth];
  const line = [
    element("span", { class: "range" }, `${tenth / 10}–${(tenth + 1) / 10}`),
    element("span", { class: "share", title: `${percent(share)} of the queries` }, element("span", { class: "bar", style: `--length: ${(share / greatest).toFixed(4)}` }), element("span", {}, percent(share))),
    element("span", { class: "sample" }, ...(places.length ? markedWords(places[0], SAMPLED) : [])),
  ];
  if (!places.length) return element("div", { class: "tenth none" }, ...line);
  const rows = places.map((place) => element("p", {}, weightOf(place), ...markedWords(place, ALL)));
  return element("details", { class: "tenth" }, element("summary", {}, ...line), ...rows);
}

function percent(share) {
  return share > 0 && share < 0.01 ? "< 1 %" : `${Math.round(100 * share)} %`;
}
