// Heads as blocks: one layer at one position, every head in its own subspace, and how the output projection mixes them.

import { drawBlocks } from "../draw/blocks.js";
import { blocksLayout } from "../draw/blocks_layout.js";
import { element } from "../draw/dom.js";
import { headColour } from "../draw/theme.js";

export const BLOCKS_VIEW = {
  name: "blocks",
  label: "Blocks",
  title: "One layer as blocks: each head's query, pattern and output, side by side, and what the output projection adds",
  draw: drawBlocksView,
};

function drawBlocksView(root, model, act) {
  const { state, data, theme, extra } = model;
  if (!extra) {
    root.replaceChildren(element("p", { class: "hint" }, "Reading the model …"));
    return;
  }
  const tokens = data.first.probes[0].tokens;
  const heads = data.first.heads;
  const flat = (at) => extra.layer * heads + extra.heads[at].head;
  const open = Math.max(0, extra.heads.findIndex((_, at) => flat(at) === state.head));
  const move = (position) => act.pin({ query: position, key: null });
  const focused = focusIn(root);
  const text = element("p", { class: "text" }, ...tokens.map((token, at) => tokenOf(token, at, extra.position, move)));
  const box = element("div", { class: "box" });
  root.style.fontSize = `${Math.max(12, Math.min(18, root.clientWidth / 80))}px`;
  root.replaceChildren(text, box, element("p", { class: "hint" }, hintOf(extra)));
  const room = root.clientHeight - text.offsetHeight - root.lastChild.offsetHeight - 16;
  const layout = blocksLayout(extra, open, { width: Math.max(300, root.clientWidth - 2), height: room });
  const context = document.createElement("canvas").getContext("2d");
  context.font = theme.font.replace(/^\d+px/, `${layout.px(12)}px`);
  const scene = {
    answer: extra, tokens, open, layout, theme, move,
    colours: extra.heads.map((_, at) => headColour(theme, flat(at), heads)),
    fit: (text, width) => fitted(context, text, width),
    tell: act.tell,
    chooseHead: (at) => act.chooseHead(flat(at), false),
  };
  box.append(drawBlocks(scene));
  const chosen = text.children[extra.position];
  text.scrollTop = chosen.offsetTop - text.offsetTop - text.clientHeight / 2;
  if (focused) root.querySelector(focused)?.focus({ preventScroll: true });
}

/** What has the focus in `root`, as a selector that finds it again after a redraw; null if nothing has. */
function focusIn(root) {
  const now = document.activeElement;
  if (!root.contains(now)) return null;
  if (now.dataset.token) return `[data-token="${now.dataset.token}"]`;
  return now.parentNode.dataset?.head ? `[data-head="${now.parentNode.dataset.head}"] .lane` : null;
}

/** How the picture is read. */
function hintOf({ averaged, d_model }) {
  const shared = averaged.d_model > 1 ? ` (of ${d_model}, ${averaged.d_model} neighbours averaged)` : "";
  return `A cell is a number${shared}: upper half above 0, lower half below. Point for numbers, click a head or a word.`;
}

function tokenOf(token, at, position, move) {
  const kind = at === position ? "token here" : at > position ? "token later" : "token";
  const title = at > position ? "comes later: no head may look there; click to move here" : "click to move here";
  return element("button", { type: "button", class: kind, title, "data-token": at, "aria-pressed": String(at === position), onclick: () => move(at) }, token.replaceAll("␣", " "));
}

/** `text`, cut with … to `width` pixels. */
function fitted(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let length = text.length;
  while (length > 0 && context.measureText(`${text.slice(0, length)}…`).width > width) length--;
  return length ? `${text.slice(0, length)}…` : "";
}
