// The sentence: the text as running text, once for each head on view or once for all of them. Point at a word, and the
// others are shaded by how much it attends to them, or they to it.
//
// The words are made once for a text; pointing only changes their style, so that a long text stays quick.

import { openingPlace } from "../data/opening.js";
import { strongest, weightAt } from "../data/snapshot.js";
import { element, onScreen } from "../draw/dom.js";
import { drawPrediction } from "../draw/prediction.js";
import { linkEnds } from "../draw/links.js";
import { headColour } from "../draw/theme.js";
import { figure, headName } from "../state/scores.js";
import { linkButtons, linksToShow } from "./link_row.js";
import { nextWord, plainToken, wordsOf } from "./words.js";

const MIN_SHADED = 0.02; // less is not shaded
const [SLOT, MAX_NAMED] = [7, 4]; // pixels of a head's bar under a word; heads that the tooltip names
/** What can be switched: [label of the group, [label, title, entries of the state]]. */
const SWITCHES = [
  ["Direction", [
    ["attends to", "Shade the words that the word pointed at attends to", { incoming: false }],
    ["is attended to by", "Shade the words that attend to the word pointed at", { incoming: true }],
  ]],
  ["Lines", [
    ["a line for each head", "The text once for each head on view", { together: false }],
    ["one line", "The text once, with a bar for each head on view under every word", { together: true }],
  ]],
];

export const SENTENCE_VIEW = {
  name: "sentence",
  label: "Sentence",
  title: "The text for each head: point at a word, and the words it attends to are shaded",
  showsLinks: true,
  draw: drawSentence,
};

function drawSentence(root, model, act) {
  if (!root.model) listen(root, act);
  root.model = model;
  const { state, data, theme } = model;
  const [probe] = data.first.probes;
  const heads = state.shown.filter((head) => probe.has(head) && probe.whole(head));
  const place = placeOf(model, heads);
  root.place = place;
  build(root, model, heads, act);
  root.hint.replaceChildren(sentenceHint(model, heads, place), place.isOpening && heads.length ? onScreen(" Point at another word; click to keep it.") : "");
  for (const [button, changes] of root.switches) button.setAttribute("aria-pressed", String(Object.entries(changes).every(([name, value]) => state[name] === value)));
  drawPredictionAfter(root.prediction, probe, place.at);
  const links = linksToShow(model, place.at);
  root.links.hidden = !probe.links.length || !state.links;
  root.links.replaceChildren(...linkButtons(links, model, act));
  const isLinked = (token) => (model.focus || data.question) && links.some((link) => linkEnds(link, { query: token, key: token }).some(Boolean));
  for (const [index, line] of root.lines.entries()) {
    const ofLine = state.together ? heads : [heads[index]];
    const colours = ofLine.map((head) => headColour(theme, head, data.first.heads));
    dress(line, ofLine, colours, model, act);
    for (const [at, word] of line.words.entries()) {
      word.classList.toggle("end", Boolean(isLinked(at)));
      shade(word, at === place.at, ofLine.map((head) => weightTo(probe, head, place, at)), colours, state.together);
    }
  }
  fit(root);
}

/** {at, isIncoming, isOpening}: the word whose attention is shown; one is chosen while nobody points or has pinned one. */
function placeOf({ state, data, focus }, heads) {
  const isIncoming = state.incoming;
  const { query, key } = focus ?? openingPlace(data.first.probes[0], heads, data.link);
  return { at: isIncoming ? (key ?? query) : (query ?? key), isIncoming, isOpening: !focus };
}

const weightTo = (probe, head, { at, isIncoming }, other) => (isIncoming ? weightAt(probe.whole(head), other, at) : weightAt(probe.whole(head), at, other));

/** Make the lines again if the text or their number has changed. */
function build(root, { state, data }, heads, act) {
  const [{ tokens }] = data.first.probes;
  const plan = JSON.stringify([tokens, state.together || heads.length]);
  if (root.plan === plan) return;
  const hadFocus = root.contains(document.activeElement) && document.activeElement.classList.contains("words");
  root.plan = plan;
  root.hint = element("p", { class: "hint" });
  root.prediction = element("div", { class: "after" });
  root.links = element("div", { class: "link-row", role: "group", "aria-label": "Links of this text" });
  root.switches = [];
  const groups = SWITCHES.map(([label, choices]) => {
    const buttons = choices.map(([name, title, changes]) => [element("button", { type: "button", title, onclick: () => act.change(changes) }, name), changes]);
    root.switches.push(...buttons);
    return element("div", { class: "segments", role: "group", "aria-label": label }, ...buttons.map(([button]) => button));
  });
  root.lines = (state.together ? [0] : heads).map(() => lineOf(tokens));
  root.replaceChildren(element("div", { class: "switches" }, ...groups, root.links), root.hint, ...root.lines.map(({ box }) => box), root.prediction);
  if (hadFocus) root.lines[0]?.text.focus();
}

/** Make the letters as large as the room allows when text, heads or window change, so that they stay while steps go by. */
function fit(root) {
  const [least, most, onPhone] = [14, 24, 17];
  const isOnPhone = window.innerWidth <= 720;
  const plan = [root.plan, window.innerWidth, window.innerHeight, root.prediction.hidden].join();
  if (root.fitted === plan) return;
  root.fitted = plan;
  const fits = (size) => {
    root.style.setProperty("--size", `${size}px`);
    return isOnPhone || root.scrollHeight <= root.clientHeight;
  };
  let size = isOnPhone ? onPhone : most;
  while (!fits(size) && size > least) size--;
}

/** {box, names, text, words}: a line of the text, still without a head. */
function lineOf(tokens) {
  const { children, words } = wordsOf(tokens);
  const names = element("div", { class: "names" });
  const text = element("p", { class: "words", tabindex: 0, role: "application" }, ...children);
  return { box: element("div", { class: "line" }, names, text), names, text, words };
}

/** Give a line the names and colours of its heads. */
function dress(line, heads, colours, { state, data: { first } }, act) {
  const { box, names, text } = line;
  const name = state.together ? "all heads on view" : headName(heads[0], first.heads);
  box.className = state.together ? "line together" : heads[0] === state.head && state.shown.length > 1 ? "line chosen" : "line";
  box.dataset.head = state.together ? "" : heads[0];
  box.style.setProperty("--head", state.together ? "var(--line)" : colours[0]);
  box.style.setProperty("--bars", `${state.together ? heads.length * SLOT : 6}px`);
  const label = `${name}: arrow keys move from word to word, Enter pins one, Escape unpins it`;
  const role = state.together ? "" : (first.roles[heads[0]] ?? "");
  if (text.getAttribute("aria-label") === label && names.shownAs === colours.join() + role) return;
  names.shownAs = colours.join() + role;
  text.setAttribute("aria-label", label);
  const buttonOf = (head, index) => element("button", { type: "button", class: "name", style: `--head: ${colours[index]}`, title: `Choose ${headName(head, first.heads)}`, onclick: () => act.chooseHead(head, false) }, headName(head, first.heads, true));
  names.replaceChildren(...heads.map(buttonOf), role && role !== "unclassified" ? element("span", { class: "hint" }, role.replaceAll("_", " ")) : "");
}

/** Style a word by the weights of its heads: shade and underline, or a bar for each head. */
function shade(word, isFrom, weights, colours, isTogether) {
  if (word.isFrom !== isFrom) word.classList.toggle("from", isFrom);
  word.isFrom = isFrom;
  const known = weights.map((weight) => (weight < MIN_SHADED ? 0 : Math.round(100 * weight) / 100));
  const key = isTogether ? known.join() + colours.join() : String(known[0]);
  if ((word.shadedBy ?? "0") === key) return;
  word.shadedBy = key;
  const isShaded = known.some((weight) => weight > 0);
  word.classList.toggle("shaded", isShaded);
  if (isTogether) word.style.background = isShaded ? known.map((weight, slot) => barOf(weight, colours[slot], known.length - slot)).join(", ") : "";
  else if (isShaded) word.style.cssText = `--weight: ${(62 * known[0] ** 0.7).toFixed(1)}%; --bar: ${(1 + 5 * known[0]).toFixed(1)}px`;
}

/** A bar under a word as a background, the thicker and denser the greater its weight; `slot` counts from below. */
function barOf(weight, colour, slot) {
  const height = weight && 1 + (SLOT - 2) * weight;
  const tone = `color-mix(in srgb, ${colour} ${(45 + 55 * weight).toFixed()}%, transparent)`;
  return `linear-gradient(${tone}, ${tone}) 0 calc(100% - ${(slot * SLOT - height).toFixed(1)}px) / 100% ${height.toFixed(1)}px no-repeat`;
}

/** One listener for all words, which are made again for every text. */
function listen(root, act) {
  const focusOf = (at) => (root.model.state.incoming ? { query: null, key: at } : { query: at, key: null });
  const wordAt = (event) => event.target.closest?.("[data-token]");
  root.addEventListener("pointermove", (event) => {
    const word = wordAt(event);
    if (word) act.hover(focusOf(Number(word.dataset.token)), event, tipOf(root, Number(word.dataset.token), word.closest(".line").dataset.head));
    else if (!event.target.closest?.(".words")) act.hover(null, event, null); // between two words nothing changes
  });
  root.addEventListener("pointerleave", (event) => act.hover(null, event, null));
  root.addEventListener("click", (event) => wordAt(event) && act.pin(focusOf(Number(wordAt(event).dataset.token))));
  root.addEventListener("keydown", (event) => {
    const line = root.lines.find((one) => one.text === event.target);
    if (!line) return;
    if (event.key === "Enter") act.pin(focusOf(root.place.at));
    if (event.key === "Escape") act.unpin();
    if (!event.key.startsWith("Arrow")) return;
    event.preventDefault();
    event.stopPropagation();
    const at = nextWord(line.words, root.place.at, event.key);
    act.hover(focusOf(at), null, null);
    line.words[at].scrollIntoView({ block: "nearest" });
    act.speak([root.hint.textContent, ...tipOf(root, at).slice(1)].join(" "));
  });
}

/** What the tooltip says about the word `at`: for the head of its line, or for all of them. */
function tipOf({ model: { state, data } }, at, ofLine = "") {
  const [probe] = data.first.probes;
  const relation = state.incoming ? "is attended to by" : "attends to";
  const heads = state.shown.filter((head) => probe.has(head) && probe.whole(head) && (ofLine === "" || head === Number(ofLine)));
  const lines = heads.slice(0, MAX_NAMED).map((head) => {
    const partners = strongest(probe.whole(head), probe.seq, state.incoming ? { key: at } : { query: at }, 3);
    return `${headName(head, data.first.heads, true)} ${relation} ${partners.map((one) => `${plainToken(probe.tokens[one.token])} ${figure(one.weight)}`).join(", ")}`;
  });
  return [plainToken(probe.tokens[at]), ...lines, ...(heads.length > MAX_NAMED ? [`and ${heads.length - MAX_NAMED} heads more`] : [])];
}

/** What is on view in one sentence, with the strongest weight of all heads on view. */
function sentenceHint({ state, data }, heads, place) {
  const [probe] = data.first.probes;
  const chosenFirst = [...heads].sort((a, b) => (b === state.head) - (a === state.head));
  const all = chosenFirst.flatMap((head) => strongest(probe.whole(head), probe.seq, place.isIncoming ? { key: place.at } : { query: place.at }, 1).map((one) => ({ ...one, head })));
  if (!all.length) return "";
  const most = all.reduce((one, other) => (other.weight > one.weight + 0.005 ? other : one));
  const name = (token) => (token === place.at ? "itself" : `“${plainToken(probe.tokens[token])}”`);
  const relation = place.isIncoming ? "is attended to most by" : "attends most to";
  return `“${plainToken(probe.tokens[place.at])}” ${relation} ${name(most.token)}: ${figure(most.weight)} in head ${headName(most.head, data.first.heads, true)}.`;
}

/** The predictions after the word `at`; none in old snapshots. */
function drawPredictionAfter(root, { predictions, tokens }, at) {
  root.hidden = !predictions;
  if (!predictions || (root.at === at && root.predictions === predictions)) return;
  Object.assign(root, { at, predictions });
  root.replaceChildren(drawPrediction(predictions, at, tokens));
}
