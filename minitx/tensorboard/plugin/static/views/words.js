// A text as running words: one element for each token, with the spaces and line breaks between them.

import { element } from "../draw/dom.js";

const IS_LETTER = /[\p{L}\p{N}]/u;

/** A token as it is read: no leading space, a space alone as ␣. */
export function plainToken(token) {
  return token.replace(/^␣+/, "") || token;
}

/** {children, words}: what a paragraph holds, and the element of every token. A word's later pieces carry the class "piece". */
export function wordsOf(tokens) {
  const isByCharacter = tokens.every((token) => [...token].length === 1);
  const words = tokens.map((token, at) => {
    const follows = at > 0 && IS_LETTER.test(tokens[at - 1].at(-1)) && IS_LETTER.test(token[0]);
    return element("span", { class: follows && !isByCharacter ? "word piece" : "word", "data-token": at }, token === "␣" ? " " : plainToken(token));
  });
  const children = words.flatMap((word, at) => {
    const spaces = tokens[at].length - plainToken(tokens[at]).length;
    return [" ".repeat(spaces), word, "\n".repeat(tokens[at].split("↵").length - 1)].filter(Boolean);
  });
  return { children, words };
}

/** The word that an arrow key leads to from `at`: the next one, or the nearest on the line above or below. */
export function nextWord(words, at, key) {
  const within = (value) => Math.min(words.length - 1, Math.max(0, value));
  if (key === "ArrowLeft" || key === "ArrowRight") return within(at + (key === "ArrowRight" ? 1 : -1));
  const by = key === "ArrowDown" ? 1 : -1;
  const box = (index) => words[index].getBoundingClientRect();
  const here = box(at);
  let [best, least] = [at, Infinity];
  for (let index = at + by, line = null; index >= 0 && index < words.length; index += by) {
    const there = box(index);
    if (Math.abs(there.top - here.top) < here.height / 2) continue;
    line ??= there.top;
    if (Math.abs(there.top - line) > here.height / 2) break;
    const distance = Math.abs(there.left + there.right - here.left - here.right);
    if (distance < least) [best, least] = [index, distance];
  }
  return best;
}
