// The labelled links of a text as buttons, for views that show text and no canvas.

import { element } from "../draw/dom.js";
import { shownLinks } from "../draw/links.js";
import { linkScore } from "../state/question.js";

/** The links that touch the word at `at`, and the one that is asked about, with the weight of the chosen head. */
export function linksToShow({ state, data }, at) {
  if (!state.links) return [];
  const probe = data.first.probes[0];
  const packed = probe.has(state.head) ? probe.whole(state.head) : null;
  const touching = shownLinks(probe, packed, { query: at, key: at }, null);
  const asked = data.question?.link ?? null;
  const isAmong = asked === null || touching.some(({ number }) => number === asked);
  return isAmong ? touching : [...shownLinks(probe, packed, null, asked), ...touching];
}

/** A button for each of `links`; it asks the survey about the link. */
export function linkButtons(links, { data }, act) {
  return links.map(({ number, label }) => {
    const isAsked = data.question?.link === number;
    return element("button", { type: "button", class: "link-label", "aria-pressed": String(isAsked), title: "Which head links these? Ask the survey", onclick: () => act.ask(linkScore(number)) }, label);
  });
}
