// Heads as blocks: one layer at one position, every head in its own subspace, and how the output projection mixes them.

import { drawBlocks } from "../draw/blocks.js";
import { blocksLayout } from "../draw/blocks_layout.js";
import { element, onScreen } from "../draw/dom.js";
import { headColour } from "../draw/theme.js";
import { nearestOf } from "../state/state.js";
import { pinnedPosition } from "../state/units.js";

export const BLOCKS_VIEW = {
  name: "blocks",
  label: "Blocks",
  title: "One layer as blocks: each head's query, pattern and output, side by side, and what the output projection adds",
  showsTokens: true, // in all units
  load: loadBlocks,
  draw: drawBlocksView,
};

/** The answer of the server to the question "blocks", with the step whose weights it comes from. */
async function loadBlocks(source, data, state, tell) {
  const { first, info, run } = data;
  if (!source.ask) throw new Error("A file runs no model: open the run in TensorBoard, or ask for a page by minitx walkthrough RUN --html.");
  const step = nearestOf(info.checkpoints, data.firstStep);
  if (step === null) throw new Error(`The run ${run} keeps no weights yet, so its layers cannot be taken apart.`);
  const [probe, layer] = [first.probes[0], Math.floor(state.head / first.heads)];
  const fields = { layer, position: pinnedPosition(probe, state, data.link) };
  return { ...(await source.ask(run, step, probe.text, "blocks", fields, tell)), step, wantedStep: data.firstStep };
}

function drawBlocksView(root, model, act) {
  const { state, data, theme, extra } = model;
  if (!extra) {
    root.replaceChildren(element("p", { class: data.extraFault ? "fault" : "hint" }, data.extraFault || "The model is asked …"));
    return;
  }
  const { heads, probes } = data.first;
  const [{ tokens }] = probes;
  const flat = (at) => extra.layer * heads + extra.heads[at].head;
  const open = Math.max(0, extra.heads.findIndex((_, at) => flat(at) === state.head));
  const move = (position) => position !== extra.position && act.pin({ query: position, key: null });
  const focused = focusIn(root);
  const text = element("p", { class: "text" }, ...tokens.map((token, at) => tokenButton(token, at, extra.position, move)));
  const box = element("div", { class: "box" });
  const hint = element("p", { class: "hint" }, blocksHint(extra), onScreen("Point for numbers, click a head or a token."));
  root.style.fontSize = `${Math.max(12, Math.min(18, root.clientWidth / 80))}px`;
  root.replaceChildren(text, box, hint);

  const size = { width: Math.max(300, root.clientWidth - 2), height: root.clientHeight - text.offsetHeight - hint.offsetHeight - 18 };
  const layout = blocksLayout(extra, open, size);
  const context = document.createElement("canvas").getContext("2d");
  context.font = theme.font.replace(/^\d+px/, `${layout.px(12)}px`);
  const drawing = drawBlocks({
    answer: extra,
    tokens,
    open,
    layout,
    theme,
    move,
    colours: extra.heads.map((_, at) => headColour(theme, flat(at), heads)),
    fit: (name, width) => cutTo(context, name, width),
    tell: act.tell,
    chooseHead: (at) => act.chooseHead(flat(at), false),
  });
  box.append(drawing);
  const chosen = text.children[extra.position];
  text.scrollTop = chosen.offsetTop - text.children[0].offsetTop - chosen.offsetHeight; // the line before it stays in sight
  if (focused) root.querySelector(focused)?.focus({ preventScroll: true });
}

/** What has the focus in `root`, as a selector that finds it again after a redraw; null if nothing has. */
function focusIn(root) {
  const now = document.activeElement;
  if (!root.contains(now)) return null;
  if (now.dataset.token) return `[data-token="${now.dataset.token}"]`;
  return now.parentNode.dataset?.head ? `[data-head="${now.parentNode.dataset.head}"] .lane` : null;
}

/** How the picture is read, and which weights it shows. */
function blocksHint({ averaged, d_model, step, wantedStep }) {
  const shared = averaged.d_model > 1 ? ` (of ${d_model}, ${averaged.d_model} neighbours averaged)` : "";
  const other = step === wantedStep ? "" : ` Weights of step ${step}, the nearest to ${wantedStep} that is kept.`;
  return `A cell is a number${shared}: upper half above 0, lower half below.${other} `;
}

function tokenButton(token, at, position, move) {
  const kind = at === position ? "token here" : at > position ? "token later" : "token";
  const title = at === position ? "the chosen position" : at > position ? "comes later: no head may look there; click to move here" : "click to move here";
  return element("button", { type: "button", class: kind, title, "data-token": at, "aria-pressed": String(at === position), onclick: () => move(at) }, token.replaceAll("␣", " "));
}

/** `text`, cut with … to `width` pixels. */
function cutTo(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let length = text.length;
  while (length > 0 && context.measureText(`${text.slice(0, length)}…`).width > width) length--;
  return length ? `${text.slice(0, length)}…` : "";
}
