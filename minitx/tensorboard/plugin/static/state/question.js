// A question to the survey: how much does every head attend from one place of the text to another? `state.score` names it.

import { figure, headName } from "./scores.js";

/** The score that asks about the pinned place. */
export const PINNED = "@pin";
const LINK = "@link:";
const LEVELS = [0.9, 0.75, 0.5, 0.25, 0.1]; // "above 0.5 since step 480"
const NOTHING = 0.05; // a weight below it links nothing

/** The score that asks about a labelled link. */
export const linkScore = (number) => `${LINK}${number}`;

/** Whether a score is a question. */
export const isQuestion = (score) => Boolean(score?.startsWith("@"));

/**
 * The question of a state about the text of `probe`, in words or tokens, or null:
 * {query, key: their tokens, [start, end]; from, to: their text; link: its number or null}. Of one word alone, key and to
 * are null, others are the tokens of each earlier word but the first, and isOfWords says whether these are words.
 */
export function questionOf({ score, token }, probe) {
  const spans = score?.startsWith(LINK) ? spansOfLink(probe.links[Number(score.slice(LINK.length))]) : score === PINNED ? spansOfPlace(token, probe) : null;
  if (!spans) return null;
  const tokensOf = ([start, end]) => [probe.spanOf(start)[0], probe.spanOf(end - 1)[1]];
  const { query, key } = spans;
  const question = { query: tokensOf(query), key: key && tokensOf(key), from: textOf(probe, query), to: key && textOf(probe, key) };
  const earlier = Array.from({ length: Math.max(0, query[0] - 1) }, (_, before) => probe.spanOf(before + 1));
  return { ...question, others: key ? [] : earlier, isOfWords: probe.units === "words", link: score === PINNED ? null : Number(score.slice(LINK.length)) };
}

const spansOfLink = (link) => (link ? { query: link.query, key: link.key } : null);

function spansOfPlace(token, { seq }) {
  if (!isAsking(token) || Math.max(token.query, token.key ?? 0) >= seq) return null;
  const hasKey = token.key !== null && token.key < token.query; // a word and itself are one word
  return { query: [token.query, token.query + 1], key: hasKey ? [token.key, token.key + 1] : null };
}

/** The place that the question about a link is pinned at: its first word and the word attended to. */
export function linkPlace(score, { links }) {
  const link = score.startsWith(LINK) ? links[Number(score.slice(LINK.length))] : null;
  return link ? { query: link.query[0], key: link.key[0] } : null;
}

/** Whether a pinned place asks something: it names the word that attends. */
export const isAsking = (token) => token !== null && token.query !== null;

/** The text of the words or tokens [start, end]. */
export function textOf({ tokens }, [start, end]) {
  const text = tokens.slice(start, end).join("");
  return text.replaceAll("␣", " ").trim() || text;
}

/** What a question asks for, in plain words. */
export function questionTitle({ from, to }) {
  return to === null ? `strongest attention from “${from}” to one earlier word` : `attention from “${from}” to “${to}”`;
}

/** Attention of a head that attends equally to all tokens up to its own; null where there is no key. */
export function uniformWeight({ query, key, others }) {
  const weightOf = (span) => {
    let sum = 0;
    for (let at = query[0]; at < query[1]; at++) sum += Math.max(0, Math.min(at + 1, span[1]) - span[0]) / (at + 1);
    return sum / (query[1] - query[0]);
  };
  return key ? weightOf(key) : others.length ? Math.max(...others.map(weightOf)) : null;
}

/** Heads of a row of weights from the greatest down, those without one left out. */
export function ranked(row) {
  const heads = [...row.keys()].filter((head) => row[head] !== null);
  return heads.sort((a, b) => row[b] - row[a] || a - b);
}

/**
 * The answer at `step` as a sentence: "Head 1·2 most: 0.64; above 0.5 since step 480." `chart` is {steps, values, isAll},
 * `toOf(head)` names the word that a head attends to, or is "".
 */
export function answerTo(question, chart, step, headsPerLayer, toOf) {
  const at = chart.steps.indexOf(step);
  const row = chart.values[at];
  if (!row) return chart.isAll ? `Step ${step} cannot be read.` : "Reading the steps …";
  const [head] = ranked(row);
  if (head === undefined) return "It has no earlier word but the first.";
  const [name, weight] = [headName(head, headsPerLayer, true), row[head]];
  if (weight < NOTHING) return `No head does: at most ${figure(weight)}, head ${name}.`;
  const to = toOf(head);
  return `Head ${name} most: ${figure(weight)}${to ? ` to “${to}”` : ""}${sinceText(chart, at, head)}.`;
}

/** Since which step a head has been above the highest level that it is above now. */
function sinceText({ steps, values, isAll }, at, head) {
  const level = LEVELS.find((one) => values[at][head] >= one);
  const read = [...steps.keys()].filter((place) => place <= at && values[place]);
  if (!isAll) return "; reading the steps …";
  if (level === undefined || read.length < 2) return "";
  const lastBelow = read.findLast((place) => !(values[place][head] >= level));
  if (lastBelow === undefined) return `; above ${level} at every step`;
  return `; above ${level} since step ${steps[read.find((place) => place > lastBelow)].toLocaleString("en")}`;
}
