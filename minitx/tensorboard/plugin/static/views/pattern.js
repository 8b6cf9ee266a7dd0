// The views of a pattern as a picture: map, columns, arcs, and the map beside the columns. With Compare they show a second
// pattern and the difference.

import { linkScore } from "../state/question.js";
import { describeFocus, movedFocus, stageContents } from "./contents.js";
import { addMagnifier } from "./magnify.js";
import { createStage, drawStage, fitting, showFocus } from "./stage.js";

const view = (name, label, title) => ({ name, label, title, family: "pattern", compares: true, draw: drawPatterns });

export const BOTH_VIEW = view("both", "Map and lines", "The pattern as a map beside the same as lines");
export const MAP_VIEW = view("map", "Map", "The pattern as a map: a row for each token, a column for each token it may attend to");
export const COLUMNS_VIEW = view("columns", "Lines", "The text in two columns: lines from each token to what it attends to");
export const ARCS_VIEW = view("arcs", "Arcs", "The text in one line: arcs from each token back to what it attends to");

function drawPatterns(root, model, act) {
  const { state, theme, focus } = model;
  root.stages ??= createStages(root, act);
  root.model = model;
  const { contents, note } = stageContents(model);
  const seq = contents[0].probe.seq;
  if (root.seq !== seq) Object.assign(root, { seq, zoom: 1 });
  if (note) act.note(note);
  root.classList.toggle("several", contents.length > 1);
  for (const [index, stage] of root.stages.entries()) {
    stage.root.hidden = index >= contents.length || !contents[index].heads.length;
  }
  for (const [index, stage] of root.stages.entries()) {
    if (!stage.root.hidden) drawStage(stage, contents[index], fitting(focus, contents[index]), { ...state, zoom: root.zoom }, theme);
  }
  if (!root.wasShown) for (const stage of root.stages) if (!stage.root.hidden) showFocus(stage, focus);
  root.wasShown = true;
}

function createStages(root, act) {
  const hover = (focus, event, stage) => act.hover(focus, event, focus && stage.content ? describeFocus(stage.content, focus) : null);
  const stages = [0, 1, 2].map(() => createStage({ hover, press: act.pin, ask: (number) => act.ask(linkScore(number)), keys: (event, stage) => pressKey(root, event, stage, act) }));
  root.append(...stages.map((stage) => stage.root));
  addMagnifier(root, stages, () => drawPatterns(root, root.model, act));
  return stages;
}

function pressKey(root, event, stage, act) {
  if (!stage.content) return;
  const now = root.model.focus;
  const arrows = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (event.key === "Enter" && now) act.pin(now);
  if (event.key === "Escape") act.unpin();
  if (!arrows) return;
  event.preventDefault();
  event.stopPropagation();
  const focus = movedFocus(now, arrows, stage.content);
  act.hover(focus, null, null);
  showFocus(stage, focus);
  act.speak(describeFocus(stage.content, focus).join("; "));
}
