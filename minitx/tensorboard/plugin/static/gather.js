// Loads the data that a state needs: runs, the steps of one run, the shown patterns, a score at every step.

import { headsWithin, nearestOf } from "./state.js";

const LONG = 64; // of a longer text, whole patterns are loaded only for the heads on view
/** The note while a user's own text is run. */
export const READING = "The model reads your text …";
const EMPTY = "No run here has snapshots yet: train one, and this page fills by itself.";

/**
 * Load what `wanted`, a state, needs from `source`:
 * {runs, refusal, run, info, probe, step, score, first, chart, note, fault}, and for a comparison
 * {otherRun, otherInfo, otherStep, second}. firstStep and secondStep are the steps of the two patterns; for an own text
 * they are steps of checkpoints. `before` is the last result: what still holds is kept, unless `isFresh`. An error
 * becomes the sentence `fault`; with `isFinal` an own text would fail again. `tell` gets a sentence if loading is slow.
 */
export async function gather(source, before, wanted, isFresh, tell) {
  const data = { ...before, fault: "", isFinal: false, note: "" };
  try {
    if (isFresh || !data.runs.length) {
      const { runs, own_text: refusal, note } = await source.runs();
      Object.assign(data, { runs, refusal, emptyNote: note });
    }
    if (!data.runs.length) return { ...data, info: null, first: null, note: data.emptyNote || EMPTY };
    await gatherRun(source, data, wanted, isFresh);
    const { info, run } = data;
    const { layers, heads, probes, scores } = info.newest ?? { layers: 1, heads: 1, probes: [], scores: {} };
    const inRange = { ...wanted, ...headsWithin(wanted, layers * heads) };
    const step = nearestOf(info.steps, wanted.step);
    const isOwn = wanted.probe < 0 && Boolean(wanted.text) && Boolean(source.ownText) && !data.refusal;
    const probe = Math.min(Math.max(0, wanted.probe), Math.max(0, probes.length - 1));
    Object.assign(data, { step, firstStep: step, probe: isOwn ? -1 : probe, first: null, second: null, chart: null, otherInfo: null });
    data.score = scores[wanted.score] || !wanted.score ? wanted.score : (Object.keys(scores)[0] ?? "");
    if (data.score) data.chart = await source.scores(run, data.score, info.steps);
    if (isOwn) data.first = await fetchOwn(source, data, wanted.text, tell);
    else data.first = await source.snapshot(run, step, probe, wholeHeads(probes[probe], [inRange.head, ...inRange.shown]));
    if (wanted.compare) await gatherOther(source, data, before, inRange, isFresh, tell);
  } catch (error) {
    data.fault = error.message;
    data.isFinal = data.probe < 0 && error.status >= 400 && error.status < 500;
  }
  return data;
}

async function gatherRun(source, data, wanted, isFresh) {
  const run = data.runs.includes(wanted.run) ? wanted.run : data.runs[0];
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
    data.second = await source.ownText(run, kept, wanted.text, tell);
    return;
  }
  const probes = info.newest?.probes ?? [];
  const probe = probes.findIndex((one) => one.text === data.first.probes[0].text);
  if (probe < 0) throw new Error(`The run ${run} has no snapshots of this text.`);
  const head = otherHead(data.first, info.newest, wanted);
  data.second = await source.snapshot(run, step, probe, wholeHeads(probes[probe], [head, ...wanted.shown]));
}

/** The heads whose whole patterns must be loaded; none of a short text, which comes with all of them. */
function wholeHeads(probe, heads) {
  return (probe?.tokens.length ?? 0) > LONG ? [...new Set(heads)].sort((a, b) => a - b) : [];
}

async function fetchOwn(source, data, text, tell) {
  const { run, info, step } = data;
  const kept = nearestOf(info.checkpoints, step);
  if (kept === null) throw new Error(`The run ${run} keeps no checkpoint, so no text can be run through it.`);
  tell(READING);
  const snapshot = await source.ownText(run, kept, text, tell);
  data.firstStep = kept;
  const more = kept === step ? "" : `, the nearest to step ${step} that is still kept`;
  data.note = `Your text through the checkpoint of step ${kept}${more}.`;
  return snapshot;
}

/** The head of the second pattern: the chosen one, else the one in the same place or nearest to it. */
export function otherHead(first, second, wanted) {
  if (wanted.other.head !== null) return Math.min(wanted.other.head, second.layers * second.heads - 1);
  const [layer, head] = [Math.floor(wanted.head / first.heads), wanted.head % first.heads];
  return Math.min(layer, second.layers - 1) * second.heads + Math.min(head, second.heads - 1);
}
