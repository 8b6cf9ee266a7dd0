// A probe in words. A word's row of a pattern is the mean over the rows of its tokens, its column the sum of their columns:
// a row still adds up to 1, and no word looks ahead.

import { pairCount, pairIndex } from "./snapshot.js";

export const HOW_WORDS = "A word's row is the mean over its tokens, its column the sum over them.";
const PART = "·"; // the label of a byte before the last one of a character
const JOINER = "\\u200d"; // how the label of a joiner alone is written
const MAX_SMALL = 64;
const made = new WeakMap();

const MIN_WORDS = 2; // a single word, such as a row of letters, is shown in tokens

/** Whether a text has words, some of which are cut into several tokens. */
export function splitsWords(probe) {
  const { words, seq } = probe.inTokens;
  return words.length >= MIN_WORDS && words.length < seq;
}

/** `probe`, a parsed one, with words in place of tokens; itself if each word is one token. */
export function inWords(probe) {
  if (!splitsWords(probe)) return probe;
  if (!made.has(probe)) made.set(probe, joined(probe));
  return made.get(probe);
}

function joined(probe) {
  const ends = [...probe.words.slice(1), probe.seq];
  const spanOf = (word) => [probe.words[word], ends[word]];
  const wordOf = (token) => probe.words.findLastIndex((start) => start <= token);
  const spans = probe.words.map((_, word) => spanOf(word));
  const isShort = probe.seq <= MAX_SMALL;
  const packs = new Map();
  const whole = (head) => {
    const packed = probe.whole(head);
    if (packed && !packs.has(head)) packs.set(head, packWords(packed, spans));
    return packed && packs.get(head);
  };
  const tokens = spans.map(([start, end]) => labelOf(probe.tokens.slice(start, end)));
  return {
    ...probe,
    units: "words",
    tokens,
    labels: tokens.map((label) => label.replace(/^␣(?=.)/, "")),
    seq: spans.length,
    side: isShort ? spans.length : probe.side,
    links: probe.links.map((link) => ({ ...link, query: coveredBy(link.query, wordOf), key: coveredBy(link.key, wordOf) })),
    predictions: probe.predictions && predictWords(probe.predictions, spans),
    spanOf,
    unitOf: wordOf,
    small: isShort ? whole : probe.small,
    whole,
  };
}

/** Predictions over the tokens of `probe` → over its units. */
export function predictionsIn(probe, predictions) {
  return probe.units === "words" ? predictWords(predictions, probe.tokens.map((_, word) => probe.spanOf(word))) : predictions;
}

/** The words that the tokens of `probe` spell letter by letter, or nearly, as minitx/data/words.py finds them. */
export function spelledOut({ inTokens: { tokens, words, seq } }) {
  const spans = words.map((start, at) => tokens.slice(start, words[at + 1] ?? seq));
  const textOf = (labels) => labelOf(labels).replace(/^␣/, "");
  const isSpelled = (labels) => textOf(labels).match(/\p{L}/gu)?.length > 1 && 4 * labels.length >= 3 * [...textOf(labels)].length;
  return [...new Set(spans.filter(isSpelled).map(textOf))];
}

/** Whether no label is longer than a letter: the tokenizer is one of characters. */
export const areLetters = (labels) => labels.every((label) => [...label.replace(/^␣/, "")].length < 2);

/** One value for each token → for each unit of `probe` the sum over its tokens; no units after the last value. */
export function sumsIn(probe, values) {
  const count = probe.unitOf(values.length - 1) + 1;
  return probe.tokens.slice(0, count).map((_, unit) => values.slice(...probe.spanOf(unit)).reduce((sum, one) => sum + one));
}

/** A packed pattern over tokens → the packed pattern over words, `spans` their [start, end] in tokens. */
export function packWords(packed, spans) {
  const into = new Uint8Array(pairCount(spans.length));
  for (const [query, [from, to]] of spans.entries()) {
    for (let key = 0; key <= query; key++) {
      let sum = 0;
      for (let row = from; row < to; row++) {
        const last = Math.min(row + 1, spans[key][1]);
        for (let column = spans[key][0]; column < last; column++) sum += (packed[pairIndex(row, column)] / 255) ** 2;
      }
      into[pairIndex(query, key)] = Math.min(255, Math.round(255 * Math.sqrt(sum / (to - from))));
    }
  }
  return into;
}

/** The likeliest next tokens after each word, and the loss of the next word: the sum over its tokens. */
function predictWords({ tokens, probabilities, real, loss }, spans) {
  const lossOf = ([start, end]) => loss.slice(start - 1, end - 1).reduce((sum, one) => (one === null || sum === null ? null : sum + one), 0);
  const last = spans.map(([, end]) => end - 1);
  return {
    tokens: last.map((token) => tokens[token]),
    probabilities: last.map((token) => probabilities[token]),
    real: last.map((token) => real?.[token] ?? null),
    loss: spans.map((_, word) => (word + 1 < spans.length ? lossOf(spans[word + 1]) : null)),
  };
}

/** The span of words that a span of tokens lies in. */
const coveredBy = ([start, end], wordOf) => [wordOf(start), wordOf(end - 1) + 1];

/** The labels of a word's tokens as one; bytes before the last one of a character are left out, and emoji are joined. */
const labelOf = (labels) => labels.filter((label, at) => label !== PART || at === labels.length - 1).join("").replaceAll(JOINER, "\u200d");
