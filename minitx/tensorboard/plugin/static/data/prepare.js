// Prepares a snapshot for all views at once: its probe in words or in tokens, its scores of one text or of another.

import { inWords } from "./words.js";

/** What the scores of a snapshot are measured on, as minitx/heads/view.py writes it; imported runs name others. */
const [VALIDATION_TEXT, YOUR_TEXT] = ["validation text", "your text"];
const THIS_TEXT = "this text";

/** `snapshot`, with one probe, as `wanted`, a state, has it shown. */
export function prepared(snapshot, { units, measured }) {
  const [probe] = snapshot.probes;
  const scored = measured === "text" && hasBoth(snapshot, probe) ? scoresOf(probe) : {};
  return { ...snapshot, ...scored, hasBoth: hasBoth(snapshot, probe), probes: [units === "tokens" ? probe : inWords(probe)] };
}

/** The name of the text whose scores at all steps are on view, given what `gather` returns. */
export function scoredOn({ isOfText, info }) {
  return isOfText ? THIS_TEXT : info.newest?.scored_on || VALIDATION_TEXT;
}

/** Whether heads were scored on the text of `probe` itself, beside the validation text or what stands in for it. */
export function hasBoth(header, probe) {
  return Boolean(header?.scored_on) && header.scored_on !== YOUR_TEXT && Object.keys(probe?.scores ?? {}).length > 0;
}

const scoresOf = ({ scores, chance, roles }) => ({ scores, chance, roles, scored_on: THIS_TEXT });
