// Prepares a snapshot for all views at once: its probe in words or in tokens, its scores of one text or of another.

import { inWords } from "./words.js";

/** What the scores of a snapshot are measured on, as minitx/heads/view.py writes it. */
const VALIDATION_TEXT = "validation text";

/** `snapshot`, with one probe, as `wanted`, a state, has it shown. */
export function prepared(snapshot, { units, measured }) {
  const [probe] = snapshot.probes;
  const scored = measured === "text" && hasBoth(snapshot, probe) ? scoresOf(probe) : {};
  return { ...snapshot, ...scored, hasBoth: hasBoth(snapshot, probe), probes: [units === "tokens" ? probe : inWords(probe)] };
}

/** Whether heads were scored on the text of `probe` itself, beside the validation text. */
export function hasBoth(header, probe) {
  return header?.scored_on === VALIDATION_TEXT && Object.keys(probe?.scores ?? {}).length > 0;
}

const scoresOf = ({ scores, chance, roles }) => ({ scores, chance, roles, scored_on: "this text" });
