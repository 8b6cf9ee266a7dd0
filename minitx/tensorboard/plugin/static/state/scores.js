// The names of heads and scores, what each score means, and its place among the others.

/** "layer 1, head 3", or "1·3" in short. */
export function headName(head, headsPerLayer, short = false) {
  const [layer, number] = [Math.floor(head / headsPerLayer), head % headsPerLayer];
  return short ? `${layer}·${number}` : `layer ${layer}, head ${number}`;
}

/** A score's name in plain words. */
export function scoreTitle(name) {
  return name.replaceAll("_", " ");
}

/** Whether a score is the attention along one kind of relationship in the tales. */
export function isOfTales(name) {
  return name.startsWith("tales_");
}

/** What hovering over a score explains. */
export function meaning(name) {
  return MEANINGS[name] ?? (isOfTales(name) ? "attention to the word that decides the next one, in held-out tales" : "");
}

/** The meaning of every score, equal to the descriptions in minitx/heads/scores.py. */
export const MEANINGS = {
  entropy: "spread of the attention in nats: exp of it is how many keys the head mixes",
  distance: "tokens between the query and what it attends to, on average",
  current_token: "attention to the query's own position",
  previous_token: "attention to the position just before the query",
  first_token: "attention to the first position, where idle heads rest",
  duplicate_token: "attention to earlier occurrences of the query's token, where it has any",
  first_mention: "attention to the first occurrence of the query's token, where it is a repeat",
  induction: "attention to what came right after earlier occurrences of the query's token, where it has any",
  induction_on_repeats: "attention to what came right after the same token, in random tokens that come twice",
  importance: "how fast the loss changes, in nats per token, as the head's output is scaled: 0 for one that does nothing",
};

/**
 * [places, hasMiddle]: the place of every head's score in a table of colours, from 0 to 1, null without a score, and
 * whether the table has a middle. Colours go from the least score of all steps to the greatest, so that one colour means
 * one value at every step. Importance starts at 0 instead, and if any score is below 0, then 0 is in the middle.
 */
export function scorePlaces(name, values, ofAllSteps = []) {
  let [least, greatest] = [Infinity, -Infinity];
  for (const row of [values, ...(ofAllSteps ?? [])]) {
    for (const value of row ?? []) {
      if (value === null) continue;
      least = Math.min(least, value);
      greatest = Math.max(greatest, value);
    }
  }
  const hasMiddle = least < 0;
  const startsAtZero = name === "importance" || name.startsWith("@");
  const reach = Math.max(-least, greatest);
  const [low, high] = hasMiddle ? [-reach, reach] : [startsAtZero ? 0 : least, greatest];
  const equal = startsAtZero ? 0 : 0.5;
  const place = (value) => (high > low ? (value - low) / (high - low) : equal);
  return [values.map((value) => (value === null ? null : place(value))), hasMiddle];
}

/** A weight or score in few characters. */
export function figure(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size < 0.00005) return "0.00";
  return value.toFixed(size >= 10 ? 1 : size >= 0.1 ? 2 : size >= 0.01 ? 3 : 4);
}
