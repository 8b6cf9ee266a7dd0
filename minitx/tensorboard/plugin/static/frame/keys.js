// The keys that work everywhere in the viewer.

const VIEW_KEYS = { 1: "sentence", 2: "both", 3: "map", 4: "columns", 5: "arcs" };

/** What the help says about keys, [keys, what they do]. */
export const KEY_HELP = [
  ["arrow keys", "move from head to head; on the slider from step to step; on a large view from token to token"],
  [", and .", "one step back, one step on"],
  ["space", "play or pause"],
  [Object.keys(VIEW_KEYS).join(" "), "show the sentence, map and lines, the map, the lines, the arcs"],
  ["Shift + click", "lay another head over the chosen one"],
  ["Enter, Escape", "pin the token under the pointer, unpin it; Escape also closes this help"],
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
