// The predictions: for each position of the text the likeliest next tokens, and the loss of the real one.

import { element } from "../draw/dom.js";
import { drawUnit, likeliestBars, lossText, shareText } from "../draw/prediction.js";
import { figure } from "../state/scores.js";

const FULL_LOSS = { tokens: 8, words: 24 }; // nats that fill the bar: a guess among 3,000 tokens, and three such guesses
const MISSING = "This snapshot is of an older version and holds no predictions. Train again, or run your own text.";

export const PREDICTIONS_VIEW = {
  name: "predictions",
  label: "Predictions",
  title: "The likeliest next tokens at each position, and the loss of the real one, at the chosen step",
  showsOne: true,
  isOfModel: true, // not of a head
  draw: drawPredictionsView,
};

function drawPredictionsView(root, { data, focus }, act) {
  const probe = data.first.probes[0];
  if (!root.act) listenToRows(root);
  root.act = act;
  if (root.shown !== probe.predictions) {
    const { scrollTop } = root;
    root.replaceChildren(...(probe.predictions ? tableOf(probe) : [element("p", { class: "hint" }, MISSING)]));
    root.shown = probe.predictions;
    root.scrollTop = scrollTop;
  }
  const position = focus ? (focus.query ?? focus.key) : null;
  for (const row of root.querySelectorAll(".position")) row.classList.toggle("from", Number(row.dataset.position) === position);
}

function tableOf({ predictions, tokens, units }) {
  const known = predictions.loss.filter((loss) => loss !== null);
  const mean = known.length ? known.reduce((sum, loss) => sum + loss, 0) / known.length : null;
  const unit = units === "words" ? "word" : "token";
  const how = units === "words" ? " A word's loss is the sum over its tokens; the likeliest are the tokens that may come first." : "";
  const hint = `Loss of the next ${unit}: ${figure(mean)} nats on average.${how} ✓ marks the token that comes next.`;
  const heads = ["After", `Next ${unit}`, "Loss in nats", "Likeliest next tokens, with their probabilities"];
  return [
    element("p", { class: "hint" }, hint),
    element("table", { class: "positions" },
      element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
      element("tbody", {}, ...tokens.map((_, position) => rowOf(predictions, tokens, position, units)))),
  ];
}

function rowOf(predictions, tokens, position, units) {
  const loss = predictions.loss[position];
  const width = `--share: ${Math.min(100, (100 * (loss ?? 0)) / FULL_LOSS[units]).toFixed(1)}%`;
  const next = position + 1 < tokens.length ? drawUnit(tokens[position + 1], "unit real") : null;
  return element("tr", { class: "position", "data-position": position },
    element("th", { scope: "row" }, drawUnit(tokens[position])),
    element("td", {}, next, next && loss !== null && element("span", { class: "share" }, shareText(Math.exp(-loss)))),
    element("td", { title: lossText(loss) }, loss !== null && element("span", { class: "loss", style: width }, figure(loss))),
    element("td", {}, element("span", { class: "likeliest" }, ...likeliestBars(predictions, position))));
}

/** Pointing at a row points at its word everywhere; a click keeps it. */
function listenToRows(root) {
  const placeOf = (event) => {
    const row = event.target.closest?.(".position");
    return row && { query: Number(row.dataset.position), key: null };
  };
  root.addEventListener("pointermove", (event) => root.act.hover(placeOf(event), event, null));
  root.addEventListener("pointerleave", (event) => root.act.hover(null, event, null));
  root.addEventListener("click", (event) => placeOf(event) && root.act.pin(placeOf(event)));
}
