// The keys that work everywhere in the viewer.

import { GROUPS } from "../views/views.js";

const VIEWS = GROUPS.flatMap(([, views]) => views).slice(0, 9);
const VIEW_KEYS = Object.fromEntries(VIEWS.map(({ name }, index) => [index + 1, name]));

/** What the help says about keys, [keys, what they do]. */
export const KEY_HELP = [
  ["arrow keys", "move from head to head; on the slider from step to step; in a text or a map from token to token"],
  [", and .", "one step back, one step on"],
  ["space", "play or pause"],
  [`1 to ${VIEWS.length}`, `show a view: ${VIEWS.map(({ label }) => label).join(", ")}`],
  ["Shift + click", "show another head together with the chosen one"],
  ["wheel, two fingers", "zoom the map at the pointer; drag a zoomed map to move it"],
  ["Enter, Escape", "pin the token pointed at, unpin it; Escape also closes this help"],
];

/** Call the actions of the keys, but not while someone types. */
export function listenToKeys(document, { move, play, headKeys, view, closeHelp }) {
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest?.("input, select, textarea");
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === ",") move(-1);
    else if (event.key === ".") move(1);
    else if (event.key === " " && !event.target.closest?.("button")) play();
    else if (event.key === "Escape") closeHelp();
    else if (VIEW_KEYS[event.key]) view(VIEW_KEYS[event.key]);
    else if (event.key.startsWith("Arrow")) return headKeys(event);
    else return;
    event.preventDefault();
  });
}

/** What a key does on the slider: an arrow key goes to the next snapshot, however many steps away. */
export function slideKeys(move) {
  return (event) => {
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
    if (!by) return;
    event.preventDefault();
    move(by);
  };
}
