// What if: the heads as switches, and the predictions and losses of the model with and without those switched off.

import { predictionsIn } from "../data/words.js";
import { element, onScreen } from "../draw/dom.js";
import { shareText } from "../draw/prediction.js";
import { tableColour } from "../draw/theme.js";
import { figure, headName } from "../state/scores.js";
import { layerOf, nearestOf } from "../state/state.js";
import { unitName } from "../state/units.js";
import { plainToken, wordsOf } from "./words.js";

const HOWS = [["zero", "Switch off", "These heads write nothing"], ["mean", "Hold at the mean", "These heads write, at every token, the mean of what they write in this text"]];
const MANY_SWITCHES = 8; // heads in a layer, of more than which no figures stand on the switches
const SMALL_CHANGE = 0.5; // nats, the least change with the full colour
const [SMALL_EFFECT, NO_EFFECT] = [0.05, 0.001]; // nats: the least effect of a head with the full colour, and one that counts as none

export const WHAT_IF_VIEW = {
  name: "what_if",
  label: "What if",
  title: "Switch heads off, and see the predictions and the loss before and after",
  showsOne: true,
  isOfModel: true, // not of a head
  load: loadWhatIf,
  draw: drawWhatIf,
};

/** The predictions before and after, the ranking if it is asked for, and the step of the weights that gave them. */
async function loadWhatIf(source, data, state, tell) {
  if (!source.ask)
    throw new Error(
      "A file holds no weights. Switch heads off in TensorBoard, or in the page that minitx export --format page writes.",
    );
  if (data.refusal) throw new Error(data.refusal);
  const step = nearestOf(data.info.checkpoints, data.step);
  if (step === null) throw new Error(`The run ${data.run} keeps no weights, so no head can be switched off.`);
  const probe = data.first.probes[0];
  const { seq, text } = probe;
  const off = state.off.filter((head) => head < data.first.count);
  const ask = (question, fields) => source.ask(data.run, step, data.probe < 0 ? state.text : text, question, { how: state.how, ...fields }, tell);
  const answer = await ask("without", { heads: off });
  const pinned = state.token?.query ?? state.token?.key ?? null;
  const position = pinned === null || pinned >= seq - 1 ? null : pinned; // nothing follows the last token
  const ranking = state.rank ? await rankingOf(probe, position, ask) : null;
  const [before, after] = [answer.before, answer.after].map((side) => predictionsIn(probe, side));
  return { ...answer, before, after, ranking, position, step, off, how: state.how };
}

/** The loss as it is and without each head, in nats: of the unit after `position`, or if that is null, a unit of the text. */
async function rankingOf(probe, position, ask) {
  const [first, last] = position === null ? [1, probe.seq - 1] : [position + 1, position + 1];
  const positions = [probe.spanOf(first)[0] - 1, probe.spanOf(last)[1] - 1]; // before the tokens of these units
  const { loss, without } = await ask("ranking", { positions });
  const each = (sum) => (sum === null ? null : sum / (last - first + 1));
  return { loss: each(loss), without: without.map(each) };
}

function drawWhatIf(root, model, act) {
  const { state, data, extra, theme } = model;
  if (!extra && (data.refusal || !data.info.checkpoints.length)) {
    return root.replaceChildren(element("p", { class: "hint" }, data.extraFault));
  }
  const drawn = [state, extra, data.first, data.extraFault, theme.kind];
  if (extra && root.drawn?.every((one, index) => one === drawn[index])) return pointWhatIf(root, model);
  const before = document.activeElement?.dataset?.switch;
  root.replaceChildren(
    ...(extra ? [whatIfHeadline(model), whatIfText(model, act)] : [element("p", { class: "hint" }, data.extraFault || "The model is asked …")]),
    element("div", { class: "columns" }, headSwitches(root, model, act), extra && predictionsBeside(model)),
  );
  if (before) root.querySelector(`[data-switch="${before}"]`)?.focus(); // the buttons are made anew
  root.drawn = drawn;
  return undefined;
}

/** Show another position. The words stay, for a press and its release must meet the same one. */
function pointWhatIf(root, model) {
  const at = shownPosition(model);
  for (const word of root.querySelectorAll(".word")) word.classList.toggle("from", Number(word.dataset.token) === at);
  root.querySelector(".predictions").replaceWith(predictionsBeside(model));
}

/** The position whose predictions are shown: the one in focus, else where the loss changes most. */
function shownPosition({ extra, focus }) {
  const chosen = focus?.query ?? focus?.key;
  if (chosen !== undefined && chosen !== null && chosen < extra.before.loss.length) return chosen;
  const sizes = extra.before.loss.map((_, at) => Math.abs(lossChangeAt(extra, at) ?? 0));
  return extra.off.length ? sizes.indexOf(Math.max(...sizes)) : Math.max(0, sizes.length - 2);
}

/** The change of the loss at a position in nats; null at the last, which has none. */
function lossChangeAt({ before, after }, at) {
  return before.loss[at] === null || after.loss[at] === null ? null : after.loss[at] - before.loss[at];
}

function meanLoss({ loss }) {
  const known = loss.filter((value) => value !== null);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

const changeColour = (theme, change, most) => tableColour(theme.diverging, Math.round(127.5 - 127.5 * Math.max(-1, Math.min(1, change / most))));

/** What was done, in a sentence. */
function whatIfHeadline({ data, extra }) {
  const { first, step } = data;
  const names = extra.off.map((head) => headName(head, first.heads, true));
  const listed = names.length > 6 ? `${names.length} heads` : `${names.length > 1 ? "heads" : "head"} ${names.join(", ")}`;
  const done = extra.how === "mean" ? `With ${listed} held at the mean` : `Without ${listed}`;
  const [old, now] = [meanLoss(extra.before), meanLoss(extra.after)];
  const unit = unitName(first.probes[0]);
  const told = !names.length
    ? "All heads are on. Switch some off, and see what the model then predicts."
    : old === null ? `${done}.` : `${done}, the loss of this text goes from ${figure(old)} to ${figure(now)} nats a ${unit} (${signedShort(now - old)}).`;
  const kept = extra.step === step ? `Weights of step ${step}.` : `Weights of step ${extra.step}, the nearest to step ${step} that are kept.`;
  return element("p", { class: "headline" }, told, " ", element("span", { class: "hint" }, kept));
}

/** The text; each word is coloured by how much the loss of the token after it changes. */
function whatIfText(model, act) {
  const { data, extra, theme } = model;
  const probe = data.first.probes[0];
  const at = shownPosition(model);
  const unit = unitName(probe);
  const most = Math.max(SMALL_CHANGE, ...extra.before.loss.map((_, place) => Math.abs(lossChangeAt(extra, place) ?? 0)));
  const { children, words } = wordsOf(probe.tokens);
  for (const [place, word] of words.entries()) {
    const change = lossChangeAt(extra, place);
    if (extra.off.length && Math.abs(change ?? 0) > most / 20) {
      const colour = changeColour(theme, change, most);
      word.style = `background: ${colour.css}; color: ${colour.isLight ? "#111" : "#fff"}`;
    }
    const focus = { query: place, key: null };
    const lines = [plainToken(probe.tokens[place]), change === null ? "nothing follows it" : `loss of the next ${unit} ${figure(extra.before.loss[place])} → ${figure(extra.after.loss[place])}`];
    word.classList.toggle("from", place === at);
    word.addEventListener("click", () => act.pin(focus));
    word.addEventListener("pointermove", (event) => act.hover(focus, event, lines));
  }
  const legend = extra.off.length ? `Orange: the next ${unit} gets less likely without these heads; blue: likelier. ` : "";
  return element("section", {}, element("p", { class: "words", onpointerleave: (event) => act.hover(null, event, null) }, ...children), element("p", { class: "hint" }, legend, onScreen("Click a word to see what the model predicts after it.")));
}

/** The heads as switches, layer by layer, and what is done with those that are off. */
function headSwitches(root, { state, data, extra, theme }, act) {
  const { first } = data;
  const probe = first.probes[0];
  const ranking = state.rank ? extra?.ranking : null;
  const changes = ranking?.without.map((loss) => (loss === null ? null : loss - ranking.loss)) ?? [];
  const most = Math.max(...changes.map((change) => Math.abs(change ?? 0)), SMALL_EFFECT);
  const change = (changed, button) => {
    button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true")); // at once, before the answer is there
    root.querySelector(".waiting").hidden = false;
    act.change(changed);
  };
  const toggled = (heads) => {
    const isOff = heads.every((head) => state.off.includes(head));
    const others = state.off.filter((head) => !heads.includes(head));
    return { off: isOff ? others : [...others, ...heads].sort((a, b) => a - b) };
  };
  const button = (name, label, title, isPressed, changed, extraAttributes = {}) =>
    element("button", { type: "button", "data-switch": name, title, "aria-pressed": String(isPressed), onclick: (event) => change(changed(), event.currentTarget), ...extraAttributes }, ...[label].flat());
  const headSwitch = (head) => {
    const effect = changes[head] ?? null;
    const colour = effect === null ? null : changeColour(theme, effect, most);
    const told = effect === null ? "" : `; without it the loss is ${figure(ranking.without[head])} instead of ${figure(ranking.loss)}`;
    const number = effect === null || first.heads > MANY_SWITCHES ? null : element("small", {}, signedShort(effect));
    const style = colour && `background-color: ${colour.css}; color: ${colour.isLight ? "#111" : "#fff"}`;
    const title = `${headName(head, first.heads)}${told}`;
    return button(`head ${head}`, [element("span", {}, headName(head, first.heads, true)), number], title, state.off.includes(head), () => toggled([head]), { class: "head", style, disabled: !probe.has(head) });
  };
  const rows = Array.from({ length: first.layers }, (_, layer) => {
    const heads = layerOf(layer * first.heads, first.heads).filter((head) => probe.has(head));
    const all = button(`layer ${layer}`, `Layer ${layer}`, "Switch the whole layer", heads.length > 0 && heads.every((head) => state.off.includes(head)), () => toggled(heads), { class: "layer" });
    return [all, ...layerOf(layer * first.heads, first.heads).map(headSwitch)];
  }).flat();
  const hows = HOWS.map(([how, label, title]) => button(how, label, title, state.how === how, () => ({ how })));
  const kind = first.heads > MANY_SWITCHES ? "switches many" : "switches";
  return element("section", { class: "heads" },
    element("div", { class: "tools" },
      element("div", { class: "segments", role: "group", "aria-label": "What is done with heads that are off" }, ...hows),
      button("none", "All on", "Switch all heads on again", false, () => ({ off: [] }), { disabled: !state.off.length }),
      button("rank", "Which head matters here?", "Colour every head by the loss without it alone", state.rank, () => ({ rank: !state.rank }), { class: "toggle" })),
    element("div", { class: kind, style: `--columns: ${first.heads}` }, ...rows),
    element("p", { class: "hint" }, ranking ? rankingTold(ranking, changes, extra, first) : "A crossed-out head is off."),
    element("p", { class: "hint waiting", role: "status", hidden: true }, "The model is asked; until then the last answer stays."));
}

/** Which head matters most, in a sentence. */
function rankingTold(ranking, changes, { position }, { heads, probes }) {
  const best = changes.reduce((most, change, head) => (change !== null && change > (changes[most] ?? -Infinity) ? head : most), 0);
  const where = position === null ? "in this text" : `after “${plainToken(probes[0].tokens[position])}”`;
  const each = position === null ? ` a ${unitName(probes[0])}` : "";
  const name = headName(best, heads);
  if (changes.every((change) => Math.abs(change ?? 0) < NO_EFFECT)) return `No head matters ${where}: without any one of them, the loss changes by less than ${NO_EFFECT}.`;
  if (!(changes[best] > 0)) return `No head lowers the loss ${where}: without any one of them it is ${figure(ranking.loss)} or less.`;
  return `${name[0].toUpperCase()}${name.slice(1)} matters most ${where}: without it alone, the loss rises by ${figure(changes[best])} nats${each}. Orange: the loss rises; blue: it falls.`;
}

/** The likeliest next tokens before and after, side by side, and the loss of the real one. */
function predictionsBeside(model) {
  const { data, extra } = model;
  const { tokens, seq } = data.first.probes[0];
  const at = shownPosition(model);
  const real = at < seq - 1 ? tokens[at + 1] : null;
  const { before, after, off, how } = extra;
  const most = Math.max(...before.probabilities[at], ...after.probabilities[at]);
  const list = (title, side, other) => {
    const rows = side.tokens[at].map((token, place) => {
      const probability = side.probabilities[at][place];
      const old = other ? (other.probabilities[at][other.tokens[at].indexOf(token)] ?? null) : null;
      const change = !other ? null : old === null ? "new" : signedShort(probability - old);
      const sizes = other ? [old, probability] : [probability, null];
      return barsOf(plainToken(token), sizes, most, shareText(probability), change, side.real?.[at] === place ? "guess real" : "guess");
    });
    return element("div", { class: "list" }, element("h3", {}, title), ...rows);
  };
  const losses = [["Loss here", before.loss[at], after.loss[at]], ["Loss of the text", meanLoss(before), meanLoss(after)]].filter(([, old]) => old !== null);
  const longest = Math.max(...losses.flatMap(([, old, now]) => [old, now ?? 0]), 1);
  const told = real === null ? ", the last token" : `; really comes “${plainToken(real)}”`;
  return element("section", { class: "predictions" },
    element("h3", { class: "about" }, "What comes after ", element("b", {}, `“${plainToken(tokens[at])}”`), told),
    element("div", { class: "sides" }, list("With all heads", before, null), off.length > 0 && list(how === "mean" ? "With heads held" : "Without", after, before)),
    ...losses.map(([title, old, now]) => {
      const told = off.length && now !== null ? `${figure(old)} → ${figure(now)}` : figure(old);
      return barsOf(title, [old, off.length ? now : null], longest, told, off.length && now !== null ? signedShort(now - old) : "", "total");
    }));
}

/** A row: a name, a grey bar for before and an orange one for after, a value, and its change. */
function barsOf(name, [old, now], most, value, change, kind) {
  const bar = (size, side) => size !== null && element("u", { class: side, style: `--size: ${(size / most).toFixed(4)}` });
  return element("div", { class: kind, title: kind === "guess real" ? "The token that really comes next" : null },
    element("span", { class: "token" }, name),
    element("span", { class: "track" }, bar(old, "old"), bar(now, "now")),
    element("span", { class: "value" }, value),
    change !== null && element("span", { class: change.startsWith("−") ? "change down" : "change" }, change));
}

/** A change with three digits behind the point. */
function signedShort(change) {
  const size = Math.abs(change).toFixed(3);
  return Number(size) === 0 ? "±0" : `${change < 0 ? "−" : "+"}${size}`;
}
