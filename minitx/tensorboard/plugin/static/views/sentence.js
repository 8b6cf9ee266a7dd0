// The sentence: the text as running text, once for each head on view. Point at a word, and the others are shaded by how
// much it attends to them.

import { pairIndex, strongest } from "../data/snapshot.js";
import { element } from "../draw/dom.js";
import { headColour } from "../draw/theme.js";
import { figure, headName } from "../state/scores.js";

const MIN_SHADE = 26; // of 255, a weight of 0.01: fainter shades are not seen

export const SENTENCE_VIEW = {
  name: "sentence",
  label: "Sentence",
  title: "The text for each head: point at a word, and the words it attends to are shaded",
  draw: drawSentence,
};

function drawSentence(root, model, act) {
  const { state, data, theme, focus } = model;
  if (!root.model) listen(root, act);
  root.model = model;
  const probe = data.first.probes[0];
  const query = focus ? (focus.query ?? focus.key) : null;
  const heads = state.shown.filter((head) => probe.has(head) && probe.whole(head));
  root.replaceChildren(element("p", { class: "hint", "data-screen": query === null }, sentenceHint(probe, query)), ...heads.map(lineOf));

  function lineOf(head) {
    const packed = probe.whole(head);
    const words = probe.tokens.map((token, at) => wordOf(token, at, query === null || at > query ? 0 : packed[pairIndex(query, at)]));
    const name = element("button", { type: "button", class: "name", title: "Choose this head", onclick: () => act.chooseHead(head, false) }, headName(head, data.first.heads, true));
    const kind = head === state.head ? "line chosen" : "line";
    const style = `--head: ${headColour(theme, head, data.first.heads)}`;
    return element("div", { class: kind, style, "data-head": head }, name, element("p", { class: "words" }, ...words));
  }

  function wordOf(token, at, level) {
    const kind = at === query ? "word from" : level >= MIN_SHADE ? "word shaded" : "word";
    const style = `--weight: ${(100 * (level / 255) ** 2).toFixed(1)}%`;
    return element("span", { class: kind, style, "data-token": at }, token.replaceAll("␣", " "));
  }
}

/** One listener for all words, which are made again with every drawing. */
function listen(root, act) {
  const wordAt = (event) => event.target.closest?.("[data-token]");
  const placeOf = (word) => ({ query: Number(word.dataset.token), key: null });
  root.addEventListener("pointermove", (event) => {
    const word = wordAt(event);
    if (!word) return act.hover(null, event, null);
    return act.hover(placeOf(word), event, tipOf(root.model, Number(word.closest(".line").dataset.head), Number(word.dataset.token)));
  });
  root.addEventListener("pointerleave", (event) => act.hover(null, event, null));
  root.addEventListener("click", (event) => wordAt(event) && act.pin(placeOf(wordAt(event))));
}

function tipOf({ data }, head, token) {
  const probe = data.first.probes[0];
  const partners = strongest(probe.whole(head), probe.seq, { query: token }, 3);
  return [probe.tokens[token], `attends to ${partners.map((one) => `${probe.tokens[one.token]} ${figure(one.weight)}`).join(", ")}`];
}

function sentenceHint(probe, query) {
  if (query === null) return "Point at a word: the darker another word, the more this one attends to it. Click to keep it.";
  return `What “${probe.tokens[query].replaceAll("␣", " ").trim()}” attends to, one line for each head.`;
}
