// From a state to the data that it asks for: runs, the steps of one, the patterns on view, a score at every step.

import { headsWithin, nearestOf } from "./state.js";

const LONG = 64; // tokens above which whole patterns are asked for head by head
/** Said while an own text is run. */
export const READING = "The model reads your text …";
const EMPTY = "No run here has snapshots yet: train one, and this page fills by itself.";

/**
 * Everything that `asked`, a state, needs from `source`, as
 * {runs, refusal, run, info, probe, step, score, first, chart, and to compare with: otherRun, otherInfo, otherStep, second,
 * note, fault}. firstStep and secondStep are the steps that the patterns are of: of an own text those of checkpoints.
 * `before` is what the last call returned; what of it still holds is not asked for again, unless `isFresh`. What fails
 * becomes the sentence `fault`; `isFinal` says that an own text would fail again. `tell` is called with a sentence where
 * it takes a while.
 */
export async function gather(source, before, asked, isFresh, tell) {
  const found = { ...before, fault: "", isFinal: false, note: "" };
  try {
    if (isFresh || !found.runs.length) {
      const { runs, own_text: refusal, note } = await source.runs();
      Object.assign(found, { runs, refusal, emptyNote: note });
    }
    if (!found.runs.length) return { ...found, info: null, first: null, note: found.emptyNote || EMPTY };
    await gatherRun(source, found, asked, isFresh);
    const { info, run } = found;
    const { layers, heads, probes, scores } = info.newest ?? { layers: 1, heads: 1, probes: [], scores: {} };
    const wanted = { ...asked, ...headsWithin(asked, layers * heads) };
    const step = nearestOf(info.steps, asked.step);
    const isOwn = asked.probe < 0 && Boolean(asked.text) && Boolean(source.ownText) && !found.refusal;
    const probe = Math.min(Math.max(0, asked.probe), Math.max(0, probes.length - 1));
    Object.assign(found, { step, firstStep: step, probe: isOwn ? -1 : probe, first: null, second: null, chart: null, otherInfo: null });
    found.score = scores[asked.score] || !asked.score ? asked.score : (Object.keys(scores)[0] ?? "");
    if (found.score) found.chart = await source.scores(run, found.score, info.steps);
    if (isOwn) found.first = await fetchOwn(source, found, asked.text, tell);
    else found.first = await source.snapshot(run, step, probe, wholeHeads(probes[probe], [wanted.head, ...wanted.shown]));
    if (asked.compare) await gatherOther(source, found, before, wanted, isFresh, tell);
  } catch (error) {
    found.fault = error.message;
    found.isFinal = found.probe < 0 && error.status >= 400 && error.status < 500;
  }
  return found;
}

async function gatherRun(source, found, asked, isFresh) {
  const run = found.runs.includes(asked.run) ? asked.run : found.runs[0];
  if (asked.run && run !== asked.run) found.fault = `There is no run ${asked.run} here with snapshots; this is ${run}.`;
  if (isFresh || found.run !== run || !found.info) found.info = await source.run(run);
  found.run = run;
  if (found.info.fault && !found.info.newest) found.fault = found.info.fault;
}

/** The second pattern of a comparison. */
async function gatherOther(source, found, before, asked, isFresh, tell) {
  const run = found.runs.includes(asked.other.run) ? asked.other.run : found.run;
  const isKnown = !isFresh && before.otherInfo && before.otherRun === run;
  const info = run === found.run ? found.info : isKnown ? before.otherInfo : await source.run(run);
  const step = nearestOf(info.steps, asked.other.step ?? found.step);
  Object.assign(found, { otherRun: run, otherInfo: info, otherStep: step, secondStep: step });
  if (found.probe < 0) {
    const kept = nearestOf(info.checkpoints, step);
    if (kept === null) throw new Error(`The run ${run} keeps no checkpoint, so no text can be run through it.`);
    found.secondStep = kept;
    found.second = await source.ownText(run, kept, asked.text, tell);
    return;
  }
  const probes = info.newest?.probes ?? [];
  const probe = probes.findIndex((one) => one.text === found.first.probes[0].text);
  if (probe < 0) throw new Error(`The run ${run} has no snapshots of this text.`);
  const head = otherHead(found.first, info.newest, asked);
  found.second = await source.snapshot(run, step, probe, wholeHeads(probes[probe], [head, ...asked.shown]));
}

/** The heads whose whole patterns have to be asked for; of a short text all come anyway. */
function wholeHeads(probe, heads) {
  return (probe?.tokens.length ?? 0) > LONG ? [...new Set(heads)].sort((a, b) => a - b) : [];
}

async function fetchOwn(source, found, text, tell) {
  const { run, info, step } = found;
  const kept = nearestOf(info.checkpoints, step);
  if (kept === null) throw new Error(`The run ${run} keeps no checkpoint, so no text can be run through it.`);
  tell(READING);
  const snapshot = await source.ownText(run, kept, text, tell);
  found.firstStep = kept;
  const more = kept === step ? "" : `, the nearest to step ${step} that is still kept`;
  found.note = `Your text through the checkpoint of step ${kept}${more}.`;
  return snapshot;
}

/** The head of the second pattern: the one asked for, or the one in the same place, or the nearest to that. */
export function otherHead(first, second, asked) {
  if (asked.other.head !== null) return Math.min(asked.other.head, second.layers * second.heads - 1);
  const [layer, head] = [Math.floor(asked.head / first.heads), asked.head % first.heads];
  return Math.min(layer, second.layers - 1) * second.heads + Math.min(head, second.heads - 1);
}
