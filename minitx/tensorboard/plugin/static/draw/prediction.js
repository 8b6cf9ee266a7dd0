// What the model predicts at one position: the likeliest next tokens as bars, the real one marked.

import { element } from "./dom.js";
import { figure } from "../state/scores.js";

const SPACE = "␣";

/** A label whose sign for a space stands back. */
export function drawUnit(label, kind = "unit") {
  const hasSpace = label.startsWith(SPACE) && label.length > 1;
  return element("span", { class: kind }, hasSpace && element("span", { class: "space" }, SPACE), hasSpace ? label.slice(1) : label);
}

/**
 * The predictions at `position`: a bar for each of the likeliest next tokens, and the real one with its loss. `predictions`
 * is {tokens, probabilities, real, loss}, `labels` those of the text.
 */
export function drawPrediction(predictions, position, labels) {
  const next = labels[position + 1];
  const real = next === undefined ? null : element("p", { class: "next" }, "Next comes ", drawUnit(next, "unit real"), `: ${lossText(predictions.loss[position])}`);
  const title = element("p", { class: "next" }, "After ", drawUnit(labels[position]), " the model expects");
  return element("div", { class: "prediction" }, title, element("div", { class: "likeliest" }, ...likeliestBars(predictions, position)), real);
}

/** The bars of one position, from the likeliest down; a ✓ marks the token that comes next. */
export function likeliestBars({ tokens, probabilities, real }, position) {
  return tokens[position].map((token, rank) => {
    const probability = probabilities[position][rank];
    const isReal = real[position] === rank;
    return element("span", { class: isReal ? "likely real" : "likely", style: `--share: ${widthOf(probability)}` },
      drawUnit(token), element("span", { class: "share" }, `${isReal ? "✓ " : ""}${shareText(probability)}`));
  });
}

/** "probability 0.42, loss 0.87 nats". */
export function lossText(loss) {
  return loss === null ? "" : `probability ${shareText(Math.exp(-loss))}, loss ${figure(loss)} nats`;
}

/** A probability in few characters. */
export function shareText(probability) {
  if (probability === null) return "–";
  return probability < 0.0005 ? "<0.001" : probability.toFixed(probability < 0.01 ? 3 : 2);
}

const widthOf = (share) => `${(100 * (share ?? 0)).toFixed(1)}%`;
