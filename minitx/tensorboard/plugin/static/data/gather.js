// Loads the data that a state needs: runs, the steps of one run, the shown patterns, a score at every step.

import { withQuestion } from "./attention.js";
import { clearLink, clearestScore, openingHeads, openingScore } from "./opening.js";
import { hasBoth, prepared } from "./prepare.js";
import { linkScore, questionOf } from "../state/question.js";
import { headsWithin, nearestOf } from "../state/state.js";
import { unitsIn } from "../state/units.js";
import { areLetters, spelledOut } from "./words.js";

const [MAX_NAMED, MAX_LETTERS] = [5, 24]; // words that a note names, and letters of one
const LONG = 64; // of a longer text, whole patterns are loaded only for the heads on view
/** The note while a user's own text is run. */
export const READING = "The model reads your text …";
const EMPTY = "No run here has snapshots yet: train one, and this page fills by itself.";

/**
 * Load what `wanted`, a state, needs from `source`:
 * {runs, refusal, run, info, probe, step, score, question, head, shown, opened, link, first, chart, extra, note, fault}, and for a comparison
 * {otherRun, otherInfo, otherStep, second}. firstStep and secondStep are the steps of the two patterns; for an own text
 * they are steps of checkpoints. `extra` is what `view` loads for itself, and `extraFault` why it could not. `before` is
 * the last result: what still holds is kept, unless `isFresh`. An error becomes the sentence `fault`, and the last picture
 * stays; where there is none yet, the nearest earlier step that can be read. With `isFinal` an own text would fail again.
 * `tell` gets a sentence if loading is slow.
 */
export async function gather(source, before, wanted, view, isFresh, tell) {
  wanted = { ...wanted, units: unitsIn(wanted, view) };
  const data = { ...before, isLoaded: false, fault: "", isFinal: false, note: "" };
  try {
    if (isFresh || !data.runs.length) {
      const { runs, newest, own_text: refusal, note } = await source.runs();
      Object.assign(data, { runs, newestRun: newest, refusal, emptyNote: note });
    }
    if (!data.runs.length) return { ...data, info: null, first: null, note: data.emptyNote || EMPTY };
    await gatherRun(source, data, wanted, isFresh);
    const first = await firstOf(source, data, wanted, tell);
    Object.assign(data, first, await chartOf(source, { ...data, ...first }, wanted), { isLoaded: true });
    if (wanted.score === null) data.opened = { score: data.score, head: isOpening(wanted) ? data.head : before.opened?.head };
    const inRange = { ...wanted, head: data.head, shown: data.shown };
    if (wanted.compare && view.compares) await gatherOther(source, data, before, inRange, isFresh, tell);
    if (view.load) await gatherExtra(source, data, before, inRange, view, tell);
  } catch (error) {
    const earlier = (data.info?.steps ?? []).filter((step) => step < data.step).at(-1);
    if (!before.first && wanted.probe >= 0 && error.status && earlier !== undefined) {
      const found = await gather(source, before, { ...wanted, step: earlier }, view, false, tell);
      return { ...found, fault: error.message };
    }
    const isSameRun = data.run === before.run;
    const known = isSameRun ? { info: data.info, runs: data.runs, step: data.step } : { runs: data.runs };
    const last = data.isLoaded || !before.first ? data : { ...before, ...known, note: "" };
    return { ...last, fault: error.message, isFinal: wanted.probe < 0 && error.status >= 400 && error.status < 500 };
  }
  return data;
}

/** The chosen heads and the pattern of the shown step; the step and the text stand in `data` at once. */
async function firstOf(source, data, wanted, tell) {
  const { info, run } = data;
  const { layers, heads, probes } = info.newest ?? { layers: 1, heads: 1, probes: [] };
  const step = nearestOf(info.steps, wanted.step);
  const isOwn = wanted.probe < 0 && Boolean(wanted.text) && Boolean(source.ownText) && !data.refusal;
  const probe = Math.min(Math.max(0, wanted.probe), Math.max(0, probes.length - 1));
  Object.assign(data, { step, probe: isOwn ? -1 : probe });
  const isOfText = !isOwn && wanted.measured === "text" && hasBoth(info.newest, probes[probe]);
  let [first, firstStep, note] = [null, step, ""];
  if (isOwn) [first, firstStep, note] = await fetchOwn(source, data, wanted.text, tell);
  let chosen = headsWithin(wanted, layers * heads);
  if (wanted.head === null) chosen = openingHeads(first ?? (await source.snapshot(run, step, probe, [])));
  first ??= await source.snapshot(run, step, probe, wholeHeads(probes[probe], [chosen.head, ...chosen.shown]));
  const others = { second: null, otherInfo: null, extra: data.extraOf === wanted.view ? data.extra : null, extraFault: "" };
  const text = JSON.stringify([run, first.probes[0].text]);
  const link = text === data.linkOf ? data.link : clearLink(first)?.number; // the place stays while steps go by
  note = [note, cutNote(first.probes[0]), isOwn ? spelledNote(first.probes[0], probes) : ""].filter(Boolean).join(" ");
  return { ...chosen, ...others, link, linkOf: text, isOfText, first: prepared(first, wanted), firstStep, note };
}

/** Whether a state leaves score and head to the opening. */
const isOpening = ({ score, head }) => score === null && head === null;

/** {question, score, chart}: of the question, which a state may ask or open with, else of a score. */
async function chartOf(source, data, wanted) {
  const { run, info, probe, isOfText, link, head } = data;
  const asked = isOpening(wanted) && link !== undefined ? linkScore(link) : wanted.score;
  const question = questionOf({ ...wanted, score: asked }, data.first.probes[0]);
  if (question) return withQuestion(source, { ...data, score: asked, question });
  const scored = (isOfText ? info.newest.probes[probe] : info.newest) ?? { scores: {}, chance: {} };
  const isKnown = (name) => scored.scores[name] || name === "";
  const opening = () => openingScore(probe < 0 ? { ...data.first, scores: pick(data.first.scores, isKnown) } : scored, head);
  const score = isKnown(wanted.score) ? wanted.score : wanted.score === null ? opening() : clearestScore(scored);
  return { question, score, chart: score ? await source.scores(run, score, info.steps, isOfText ? probe : null) : null };
}

/** The entries of an object whose names are wanted. */
const pick = (object, isWanted) => Object.fromEntries(Object.entries(object).filter(([name]) => isWanted(name)));

/** What the view itself asks for. If that fails, the pattern is still shown, and of the same pattern the last answer. */
async function gatherExtra(source, data, before, wanted, view, tell) {
  try {
    data.extra = await view.load(source, data, wanted, tell);
  } catch (error) {
    const extra = patternOf(data) === patternOf(before) ? data.extra : null;
    Object.assign(data, { extra, extraFault: error.message });
  }
  data.extraOf = view.name;
}

/** The pattern on view, named in full. */
function patternOf({ run, firstStep, head, first }) {
  return JSON.stringify([run, firstStep, head, first?.probes[0].text, first?.probes[0].units]);
}

async function gatherRun(source, data, wanted, isFresh) {
  const run = data.runs.includes(wanted.run) ? wanted.run : (data.newestRun ?? data.runs[0]);
  if (wanted.run && run !== wanted.run) data.fault = `The run ${wanted.run} has no snapshots here; this is ${run}.`;
  if (isFresh || data.run !== run || !data.info) data.info = await source.run(run);
  data.run = run;
  if (data.info.fault && !data.info.newest) data.fault = data.info.fault;
}

/** The second pattern of a comparison. */
async function gatherOther(source, data, before, wanted, isFresh, tell) {
  const run = data.runs.includes(wanted.other.run) ? wanted.other.run : data.run;
  const isKnown = !isFresh && before.otherInfo && before.otherRun === run;
  const info = run === data.run ? data.info : isKnown ? before.otherInfo : await source.run(run);
  const step = nearestOf(info.steps, wanted.other.step ?? data.step);
  Object.assign(data, { otherRun: run, otherInfo: info, otherStep: step, secondStep: step });
  if (data.probe < 0) {
    const kept = nearestOf(info.checkpoints, step);
    if (kept === null) throw new Error(`The run ${run} keeps no checkpoint, so no text can be run through it.`);
    data.secondStep = kept;
    data.second = prepared(await source.ownText(run, kept, wanted.text, tell), wanted);
    return;
  }
  const probes = info.newest?.probes ?? [];
  const probe = probes.findIndex((one) => one.text === data.first.probes[0].text);
  if (probe < 0) throw new Error(`The run ${run} has no snapshots of this text.`);
  const head = otherHead(data.first, info.newest, wanted);
  const second = await source.snapshot(run, step, probe, wholeHeads(probes[probe], [head, ...wanted.shown]));
  data.second = prepared(second, wanted);
}

/** A sentence if the text is longer than the context, else "". */
function cutNote({ dropped, inTokens: { seq } }) {
  if (!dropped) return "";
  const last = dropped === 1 ? "its last token is" : `its last ${dropped} tokens are`;
  return `The text is cut: ${last} left out, for the model sees ${seq} at once.`;
}

/** A sentence if words of the text are no tokens, else "". The run's own texts tell what tokens are like. */
function spelledNote(probe, others) {
  const words = [probe.inTokens, ...others].every(({ tokens }) => areLetters(tokens)) ? [] : spelledOut(probe);
  const short = (word) => (word.length > MAX_LETTERS ? `${word.slice(0, MAX_LETTERS - 1)}…` : word);
  const named = words.slice(0, MAX_NAMED).map(short).join(", ") + (words.length > MAX_NAMED ? " …" : "");
  return words.length ? `In this text the tokenizer has no token for ${named}: the model reads them in small pieces.` : "";
}

/** The heads whose whole patterns must be loaded; none of a short text, which comes with all of them. */
function wholeHeads(probe, heads) {
  return (probe?.tokens.length ?? 0) > LONG ? [...new Set(heads)].sort((a, b) => a - b) : [];
}

/** [snapshot, its step, a note] of a text of the user's own. */
async function fetchOwn(source, data, text, tell) {
  const { run, info, step } = data;
  const kept = nearestOf(info.checkpoints, step);
  if (kept === null) throw new Error(`The run ${run} keeps no checkpoint, so no text can be run through it.`);
  tell(READING);
  const snapshot = await source.ownText(run, kept, text, tell);
  const more = kept === step ? "" : `, the nearest to step ${step} whose weights are kept`;
  return [snapshot, kept, `Your text through the weights of step ${kept}${more}.`];
}

/** The head of the second pattern: the chosen one, else the one in the same place or nearest to it. */
export function otherHead(first, second, wanted) {
  if (wanted.other.head !== null) return Math.min(wanted.other.head, second.layers * second.heads - 1);
  const [layer, head] = [Math.floor(wanted.head / first.heads), wanted.head % first.heads];
  return Math.min(layer, second.layers - 1) * second.heads + Math.min(head, second.heads - 1);
}
