// Guided examples: what is worth a look in a run, found in its snapshots, with one sentence of what to see.
//
// A guide is {title, sentence, changes}: the changes to the state show it. Heads, weights and steps come from the data.

import { clearLink, followedLinks, follower, linkWeight } from "./opening.js";
import { weightAt } from "./snapshot.js";
import { inWords } from "./words.js";
import { linkScore } from "../state/question.js";
import { figure, headName } from "../state/scores.js";
import { layerOf } from "../state/state.js";
import { strengthOf } from "../state/telling.js";

const [LEAST_STRENGTH, LEAST_WEIGHT] = [0.2, 0.3]; // of a score, above uniform attention; of a weight
const [MAX_TOKENS, MAX_RUNS, MAX_GUIDES] = [64, 12, 9];

const earlier = (tokens, query) => [...tokens.keys()].filter((at) => at < query && tokens[at] === tokens[query]);

/** What each score looks for: [title, keys of a query, what the query attends to]. */
const HABITS = {
  induction: ["The induction head", (tokens, query) => earlier(tokens, query).map((at) => at + 1).filter((at) => at < query), (word, key) => `${key}, which came right after an earlier ${word}`],
  previous_token: ["A head for the previous token", (_, query) => (query > 1 ? [query - 1] : []), (_, key) => `the token just before it, ${key}`],
  duplicate_token: ["A head for duplicates", earlier, (word) => `an earlier ${word}`],
  first_token: ["The attention sink", (_, query) => (query > 1 ? [0] : []), (_, key) => `the first token, ${key}`],
  current_token: ["A head that looks at the token itself", (_, query) => (query > 0 ? [query] : []), () => "itself"],
};
/** Relationships of the tales that have a guide. */
const OF_TALES = { tales_agreement: "Singular or plural", tales_pronoun: "Whom a pronoun means" };

/** All guides for the shown run, the most telling first. */
export async function findGuides(source, { run, runs, info }) {
  const { newest, steps } = info;
  if (!newest || !steps.length) return [];
  const step = steps.at(-1);
  const short = [...newest.probes.keys()].filter((at) => newest.probes[at].tokens.length <= MAX_TOKENS);
  const texts = await Promise.all(short.map(async (at) => [at, inWords((await source.snapshot(run, step, at, [])).probes[0])]));
  const about = (head, changes) => ({ step: null, head, shown: layerOf(head, newest.heads), token: null, units: "words", view: "sentence", incoming: false, together: false, compare: false, ...changes });
  const habits = Object.keys(HABITS).map((name) => habitGuide(name, newest, texts, about)).filter(Boolean);
  for (const guide of habits) guide.sentence += sinceText(await source.scores(run, guide.changes.score, steps), guide.changes.head);
  const links = texts.filter(([, probe]) => probe.links.length).map(([at, probe]) => linkGuide(at, probe, newest, about));
  const tales = Object.keys(OF_TALES).map((name) => talesGuide(name, newest, about)).filter(Boolean);
  const others = await otherGuide(source, { run, runs, newest, steps, texts }, about);
  const all = [...habits, ...others, ...links, ...tales];
  return all.filter((guide, at) => all.findIndex(({ title }) => title === guide.title) === at).slice(0, MAX_GUIDES);
}

/** The head with the highest of a score, at the place of all texts where it shows it most; null if there is none. */
function habitGuide(name, newest, texts, about) {
  const head = highest(newest.layers * newest.heads, (one) => strengthOf(newest, name, one));
  if (head === null || strengthOf(newest, name, head) < LEAST_STRENGTH) return null;
  const [title, keysOf, attendsTo] = HABITS[name];
  let best = { weight: LEAST_WEIGHT };
  for (const [at, probe] of texts) {
    for (let query = 0; query < probe.seq && probe.has(head); query++) {
      for (const key of keysOf(probe.tokens, query)) {
        const weight = weightAt(probe.whole(head), query, key);
        if (weight > best.weight) best = { weight, at, query, key, probe };
      }
    }
  }
  if (!best.probe) return null;
  const word = quoted(best.probe, best.query);
  const sentence = `${word} attends to ${attendsTo(word, quoted(best.probe, best.key))}. Head ${headName(head, newest.heads, true)} gives it ${figure(best.weight)} of the attention.`;
  return { title, sentence, changes: about(head, { probe: best.at, token: { query: best.query, key: null }, score: name }) };
}

/** The labelled link of a text that a head follows most, and the other links from the same place; the chart shows it. */
function linkGuide(at, probe, newest, about) {
  const snapshot = { ...newest, probes: [probe] };
  const { number, head, weight } = clearLink(snapshot) ?? followedLinks(snapshot).reduce((one, other) => (other.weight > one.weight ? other : one));
  const link = probe.links[number];
  const rivals = probe.links.filter((other) => other !== link && String(other.query) === String(link.query)).map((rival) => `“${rival.name}” gets ${figure(linkWeight(probe, head, rival))} there.`);
  const sentence = [`Head ${headName(head, newest.heads, true)} follows “${link.name}” most: ${figure(weight)} of the attention.`, ...rivals].join(" ");
  return { title: link.name, sentence, changes: about(head, { probe: at, score: linkScore(number), token: { query: link.query[0], key: link.key[0] } }) };
}

function talesGuide(name, newest, about) {
  const head = highest(newest.layers * newest.heads, (one) => strengthOf(newest, name, one));
  if (head === null || strengthOf(newest, name, head) < LEAST_STRENGTH) return null;
  const sentence = `In held-out tales, head ${headName(head, newest.heads, true)} gives the word that decides the next one ${figure(newest.scores[name][head])} of its attention. Uniform attention would give it ${figure(newest.chance[name])}. The chart shows how that grew.`;
  return { title: OF_TALES[name], sentence, changes: about(head, { score: name }) };
}

/** A run with other numbers of heads that has snapshots of the same text, beside this one; [] if there is none. */
async function otherGuide(source, { run, runs, newest, steps, texts }, about) {
  for (const name of runs.filter((one) => one !== run).slice(0, MAX_RUNS)) {
    const info = await source.run(name).catch(() => null);
    const other = info?.newest;
    if (!other || other.heads === newest.heads) continue;
    for (const [at, probe] of texts) {
      const place = other.probes.findIndex((one) => one.text === probe.text);
      if (place < 0 || !probe.links.length || other.probes[place].tokens.length > MAX_TOKENS) continue;
      const [link] = probe.links;
      const second = inWords((await source.snapshot(name, info.steps.at(-1), place, [])).probes[0]);
      if (!second.links.length) continue;
      const [head, otherHead] = [bestFor(probe, link, newest), bestFor(second, second.links[0], other)];
      const side = (title, one, weight, { heads: count }) => `In ${title} (${count === 1 ? "one head" : `${count} heads`} a layer) head ${headName(one, count, true)} follows “${link.name}” most: ${figure(weight)}.`;
      const sides = [side(run, head, linkWeight(probe, head, link), newest), side(name, otherHead, linkWeight(second, otherHead, second.links[0]), other), differences(newest, other, steps, info.steps)];
      const changes = about(head, { probe: at, view: "map", compare: true, other: { run: name, step: null, head: otherHead }, token: { query: link.query[1] - 1, key: link.key[0] } });
      return [{ title: `${countOf(newest)} or ${countOf(other)}`, sentence: sides.join(" "), changes }];
    }
  }
  return [];
}

const countOf = ({ heads: count }) => (count === 1 ? "one head" : `${count} heads`);
const bestFor = (probe, link, { layers, heads: count }) => follower(probe, link, layers * count).head ?? 0;
const quoted = (probe, at) => `“${probe.tokens[at].replace(/^␣+(?=.)/, "")}”`;

/** The head below `count` with the highest value; null if none has one. */
function highest(count, valueOf) {
  const known = Array.from({ length: count }, (_, head) => head).filter((head) => valueOf(head) !== null);
  return known.length ? known.reduce((best, head) => (valueOf(head) > valueOf(best) ? head : best)) : null;
}

/** What a comparison by heads leaves out: settings that differ besides, as far as snapshots tell. */
function differences(one, other, steps, otherSteps) {
  const parts = [one.layers !== other.layers && "layers", steps.at(-1) !== otherSteps.at(-1) && "steps"].filter(Boolean);
  return parts.length ? `The runs also differ in ${parts.join(" and ")}.` : "Other settings of the runs may differ too.";
}

/** Since which step a head's score has been at least half of what it is at the end. */
function sinceText({ steps, values }, head) {
  const known = [...steps.keys()].filter((at) => values[at] && values[at][head] !== null);
  const half = values[known.at(-1)]?.[head] / 2;
  const lastBelow = known.findLastIndex((at) => values[at][head] < half);
  return known.length > 1 && lastBelow >= 0 ? ` Half of this habit was there by step ${steps[known[lastBelow + 1]].toLocaleString("en")}.` : "";
}
