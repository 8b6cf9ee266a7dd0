// What the chosen head writes at the pinned token: the tokens it pushes up and down, and the words it took that from.

import { sumsIn } from "../data/words.js";
import { element, onScreen } from "../draw/dom.js";
import { headColour } from "../draw/theme.js";
import { figure, headName } from "../state/scores.js";
import { nearestOf } from "../state/state.js";
import { pinnedPosition, unitName } from "../state/units.js";

const DIRECT = "Added to the logit of a token, beyond the mean of all tokens. The direct effect alone: what later layers make of it is left out. Tokens with a probability below 0.001, with and without it, are not named.";
const BY = { Q: "queries", K: "keys", V: "values" };
const [CLEAR_COPYING, CLEAR_READING] = [0.3, 0.05];

export const WRITES_VIEW = {
  name: "writes",
  label: "What it writes",
  title: "The tokens that the chosen head makes likelier or less likely, and the words it took that from",
  showsOne: true,
  load: loadWrites,
  draw: drawWrites,
};

/** The answer to the question "writes" in units of the text, with the head, unit and step that it is about. */
async function loadWrites(source, data, state, tell) {
  if (!source.ask) throw new Error("A file holds no weights, so what a head writes is shown only in TensorBoard.");
  if (data.refusal) throw new Error(data.refusal);
  const step = nearestOf(data.info.checkpoints, data.firstStep);
  if (step === null) throw new Error(`The run ${data.run} keeps no weights, so nothing can tell what a head writes.`);
  const probe = data.first.probes[0];
  const position = pinnedPosition(probe, state, data.link);
  const answer = await source.ask(data.run, step, probe.text, "writes", { head: state.head, position }, tell);
  return { ...answerIn(probe, answer), step, at: probe.unitOf(position), head: state.head };
}

/** `answer` with units of `probe` as its sources: what the head takes from the tokens of a word is added up. */
function answerIn(probe, answer) {
  const [weights, values] = ["weight", "value"].map((name) => sumsIn(probe, answer.sources.map((source) => source[name])));
  const entryIn = (entry) => entry && { ...entry, sources: sumsIn(probe, entry.sources) };
  const [up, down] = [answer.up, answer.down].map((entries) => entries.map(entryIn));
  return { ...answer, up, down, real: entryIn(answer.real), sources: weights.map((weight, at) => ({ at, weight, value: values[at] })) };
}

function drawWrites(root, model, act) {
  const { data, theme, extra } = model;
  if (!extra) return root.replaceChildren(element("p", { class: "hint" }, data.extraFault || "The model is asked …"));
  if (root.extra !== extra) Object.assign(root, { extra, entry: extra.up[0] });
  root.style.setProperty("--head", headColour(theme, extra.head, data.first.heads));
  const show = (entry) => {
    root.entry = entry; // in place, so that the row keeps its focus
    const scrolled = root.querySelector(".text").scrollTop;
    root.querySelector(".sources").replaceWith(sourcesOf(extra, entry, model, act));
    root.querySelector(".text").scrollTop = scrolled;
    for (const row of root.querySelectorAll(".row")) row.setAttribute("aria-pressed", String(row.entry === entry));
  };
  root.replaceChildren(
    writesHeadline(extra, data.first),
    sourcesOf(extra, root.entry, model, act),
    element("div", { class: "columns" }, pushedList("Pushes up", "up", extra, root.entry, show), pushedList("Pushes down", "down", extra, root.entry, show), headFacts(extra, data, act)),
  );
  const [text, from] = [".text", ".from"].map((part) => root.querySelector(part));
  text.scrollTop = from.offsetTop + from.offsetHeight - text.clientHeight; // the token it writes at is in sight
  return undefined;
}

const spoken = (token) => token.replaceAll("␣", " ").trim() || token;
const quoted = (token) => element("b", {}, `“${spoken(token)}”`);

/** "At “it”, this head takes “animal” and pushes up “tired”." */
function writesHeadline({ up, sources, at: from }, { probes: [probe] }) {
  const taken = sources.reduce((best, one) => (one.value > best.value ? one : best));
  const names = up.filter((entry) => entry.value > 0 && entry.value >= up[0].value / 2).slice(0, 3);
  const listed = names.flatMap((entry, index) => [index ? ", " : "", quoted(entry.token)]);
  const at = ["At ", quoted(probe.tokens[from]), ", this head "];
  if (!names.length) return element("p", { class: "headline" }, ...at, "writes nothing");
  const whence = taken.at === from ? `that ${unitName(probe)} itself` : quoted(probe.tokens[taken.at]);
  return element("p", { class: "headline" }, ...at, "takes ", whence, ` (attention ${figure(taken.weight)}) and pushes up `, ...listed, ".");
}

const isSpaced = (token) => token.startsWith("␣") && token.length > 1;

/** Whether the unit `at` is a token inside a word. */
const isPiece = ({ units, words }, at) => units === "tokens" && words.length > 0 && !words.includes(at);

/** The text, words shaded by attention, with a bar above each word that pushes `entry` up, and below one that pushes it down. */
function sourcesOf({ at: from, sources }, entry, { state, data }, act) {
  const probe = data.first.probes[0];
  const most = Math.max(...entry.sources.map(Math.abs), 1e-9);
  const strongest = entry.sources.findIndex((value) => Math.abs(value) === most);
  const label = (at) => (at === strongest ? element("small", {}, signedFigure(entry.sources[at])) : null);
  const bar = (at, isUp) => element("i", { class: isUp ? "up" : "down" }, label(at), element("u"));
  const word = (token, at) => {
    const value = entry.sources[at] ?? 0;
    const kind = at > from ? "source later" : at === from ? "source from" : "source";
    const style = `--weight: ${(100 * (sources[at]?.weight ?? 0)).toFixed(1)}%; --size: ${(Math.abs(value) / most).toFixed(3)}`;
    const lines = at > from ? ["The head cannot see it: it comes later."] : [`attention ${figure(sources[at].weight)}`, `${signedFigure(value)} to “${spoken(entry.token)}”`];
    const listeners = { onclick: () => act.pin({ query: at, key: null }), onpointermove: (event) => act.tell([token, ...lines], event), onpointerleave: (event) => act.tell(null, event) };
    return element("span", { class: kind, style, "data-token": at, ...listeners }, isSpaced(token) ? token.slice(1) : token, value ? bar(at, value > 0) : null);
  };
  const line = [];
  for (const [at, token] of probe.tokens.entries()) {
    if (isSpaced(token)) line.push(" ");
    if (isSpaced(token) || !isPiece(probe, at)) line.push(element("span", { class: "unbroken" }));
    line.at(-1).append(word(token, at));
  }
  const unit = unitName(probe);
  const caption = element("p", { class: "hint" }, `Shade: attention. Bars: how much each ${unit} pushes `, quoted(entry.token), " up or down. ", onScreen(`Click a ${unit} to see what the head writes there.`));
  return element("div", { class: "sources" }, caption, element("p", { class: "text" }, ...line));
}

/** A list of tokens with bars; pointing at one calls `show` with it. */
function pushedList(title, name, extra, shown, show) {
  const most = Math.max(...extra.up.map((entry) => Math.abs(entry.value)), ...extra.down.map((entry) => Math.abs(entry.value)), 1e-9);
  const row = (entry, isReal) => {
    const size = Math.min(1, Math.abs(entry.value) / most).toFixed(3);
    const kind = `row${isReal ? " real" : ""}${entry.value < 0 ? " down" : ""}`;
    const button = element(
      "button",
      { type: "button", class: kind, "aria-pressed": String(entry === shown), onpointerenter: () => show(entry), onfocus: () => show(entry) },
      element("span", { class: "token", title: entry.token }, entry.token),
      element("span", { class: "track" }, element("u", { style: `--size: ${size}` })),
      element("span", { class: "value" }, signedFigure(entry.value)),
    );
    return Object.assign(button, { entry });
  };
  const real = name === "up" && extra.real && [element("p", { class: "hint" }, "The token that really comes next"), row(extra.real, true)];
  return element("section", { class: `pushed ${name}`, title: DIRECT }, element("h3", {}, title), ...extra[name].map((entry) => row(entry, false)), ...(real || []));
}

/** The copying score, the heads it reads, and which weights all this is about. */
function headFacts({ copying, reads, step }, data, act) {
  const { heads } = data.first;
  const meter = copying !== null && element("div", { class: "meter" }, element("u", { style: `--place: ${((copying + 1) / 2).toFixed(3)}` }));
  const isClear = reads.length > 0 && reads[0].value >= CLEAR_READING;
  const button = ({ kind, head, value }) =>
    element(
      "button",
      { type: "button", class: "read", title: `Open ${headName(head, heads)}. Its output and the ${BY[kind]} of this head share directions: ${signedFigure(value)} above chance.`, onclick: () => act.chooseHead(head, false) },
      `${BY[kind]} from ${headName(head, heads, true)}`, element("span", { class: "value" }, signedFigure(value)),
    );
  const reading = !reads.length ? "Nothing: no head comes before it." : isClear ? "Composition of the weights, above chance:" : "None clearly: all lie near chance, 0.";
  return element(
    "section", { class: "about" },
    element("h3", { title: "Eigenvalues of its OV circuit: 1 if it raises every token it attends to, -1 if it lowers them (Elhage et al. 2021)" }, `Copying score ${copying === null ? "–" : copying.toFixed(2)}`),
    meter, element("p", { class: "hint" }, copyingMeaning(copying)),
    element("h3", {}, "Reads from earlier heads"), element("p", { class: "hint" }, reading), ...reads.map(button),
    step !== data.firstStep && element("p", { class: "hint" }, `With the weights of step ${step}, the nearest that are kept.`),
  );
}

/** What a copying score says, in one line. */
function copyingMeaning(score) {
  if (score === null) return "It writes nothing that could be scored.";
  if (score >= CLEAR_COPYING) return "On the whole it makes the token it attends to likelier.";
  if (score <= -CLEAR_COPYING) return "On the whole it makes the token it attends to less likely.";
  return "On the whole it neither copies nor suppresses what it attends to.";
}

function signedFigure(value) {
  return `${value > 0 ? "+" : value < 0 ? "−" : ""}${figure(Math.abs(value))}`;
}
