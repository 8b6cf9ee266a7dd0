// The lower half of the blocks: each head's share, their sum, the residual, and the next token.

import { cellStrip, partBar, reachOf, shape, textAt, told, wordLabel } from "./cells.js";
import { shareText } from "./prediction.js";
import { figure } from "../state/scores.js";

/** Where the next token is read off, by the names in answer.predictions: [title, explanation]. */
const READ_OFF = {
  before: ["before", "read off the residual before the heads (logit lens)"],
  after: ["+ heads", "read off the residual with the heads' sum added (logit lens)"],
  after_layer: ["+ feed-forward", "read off the residual after the whole layer (logit lens)"],
  final: ["at the end", "the model's own prediction, after its last layer"],
};

/** All of it as shapes; `scene` as in drawBlocks. */
export function drawResidual(scene) {
  const { answer, layout, colours, theme } = scene;
  const shares = answer.heads.map(({ head, share }, at) => ({ vector: share, y: layout.shares[at], colour: colours[at], name: `head ${head}`, about: `share of head ${head}: its output times its rows of W_O` }));
  const sum = { vector: answer.sum, y: layout.sum, colour: theme.ink, name: "= sum", about: "sum of the shares: what the heads of this layer add to the residual" };
  const before = { vector: answer.before, y: layout.before, colour: theme.muted, name: "residual", about: "the residual before the heads" };
  const after = { vector: answer.after, y: layout.after, colour: theme.ink, name: "with sum", about: "the residual with the sum added" };
  const longest = Math.max(...[...shares, sum, before, after].map((row) => row.vector.length));
  const draw = (rows) => rows.flatMap((row) => drawAddend(scene, row, longest, reachOf(rows.map((one) => one.vector))));
  const title = layout.spread + layout.heights.title / 2;
  return [
    textAt(layout.isNarrow ? "each head's share" : "each head's share: its output through its rows", layout.label, title, { class: "name" }),
    textAt("length", layout.bar.x, title, { class: "name" }),
    ...draw([...shares, sum]),
    ...draw([before, after]),
    shape("path", { d: `M${layout.label} ${layout.sum - layout.px(3)}h${layout.strip}`, stroke: theme.ink, "stroke-width": 1.5 }),
    ...drawPredictions(scene),
  ];
}

/** A vector as wide as the residual, and its length as a bar. */
function drawAddend({ layout, answer, theme, tell }, { vector, y, colour, name, about }, longest, reach) {
  const height = layout.heights.share;
  const middle = y + height / 2;
  return [
    textAt(name, layout.label - 10, middle, { "text-anchor": "end", fill: colour, "font-weight": 600 }),
    cellStrip(vector, { x: layout.label, y, width: layout.strip, height }, { colour, reach, averaged: answer.averaged.d_model, lines: [about], tell }),
    partBar(vector.length / longest, { ...layout.bar, y: y + height * 0.2, height: height * 0.6 }, colour),
    textAt(figure(vector.length), layout.bar.x + layout.bar.width + layout.px(6), middle, { class: "number", fill: theme.ink }),
  ];
}

/** The likeliest next tokens, a column for each place where they are read off; the real one is bold. */
function drawPredictions({ answer, layout, theme, fit, tell, tokens: text }) {
  const { x, y, width, height } = layout.guesses;
  const isLast = JSON.stringify(answer.predictions.after_layer) === JSON.stringify(answer.predictions.final);
  const names = Object.keys(READ_OFF).filter((name) => name !== "after_layer" || !(isLast || layout.isNarrow || width < layout.px(420)));
  const column = width / names.length;
  const row = Math.min(layout.px(20), height / 7);
  const room = column - layout.px(12);
  const columns = names.map((name, place) => {
    const { tokens, probabilities } = answer.predictions[name];
    const left = x + place * column;
    const [title, about] = READ_OFF[name];
    const heading = told(textAt(fit(title, room), left, y + row * 1.5, { class: "name" }), tell, [`next token, ${title}`, about]);
    const guesses = tokens.map((token, at) => {
      const top = y + (at + 2) * row;
      const isReal = token === text[answer.position + 1];
      const bar = { x: left, y: top + 1, width: Math.max(1, room * probabilities[at]), height: row - 2, rx: 2, fill: theme.accent, opacity: 0.35 };
      const over = shape("rect", { x: left, y: top, width: room, height: row, fill: "transparent" });
      const lines = [token, `probability ${shareText(probabilities[at])}${isReal ? ", the real next token" : ""}`, about];
      return shape(
        "g",
        { class: isReal ? "guess real" : "guess" },
        shape("rect", bar),
        textAt(fit(wordLabel(token), room - layout.px(44)), left + 4, top + row / 2, { fill: theme.ink }),
        textAt(shareText(probabilities[at]), left + room, top + row / 2, { "text-anchor": "end", class: "number", fill: theme.muted }),
        told(over, tell, lines),
      );
    });
    return shape("g", {}, heading, ...guesses);
  });
  return [textAt("likeliest next tokens", x, y + layout.heights.title / 2, { class: "name" }), ...columns];
}
