// The scatter: every head as a point on two scores. It moves with the steps, and the chosen head leaves a trail.

import { clearestScores } from "../data/opening.js";
import { scoredOn } from "../data/prepare.js";
import { shape } from "../draw/cells.js";
import { element, fillSelect, onScreen } from "../draw/dom.js";
import { drawPoints, scatterLayout } from "../draw/points.js";
import { headColour } from "../draw/theme.js";
import { figure, headName, meaning, scoreTitle } from "../state/scores.js";
import { START } from "../state/state.js";

export const SCATTER_VIEW = {
  name: "scatter",
  label: "Scatter",
  title: "Every head as a point on any two scores, moving with the steps",
  showsOne: true,
  load: loadScatter,
  draw: drawScatter,
};

/** The scores of both axes at all steps, of the text that heads are scored on. */
async function loadScatter(source, data, wanted) {
  const names = scatterNames(data, wanted.scatter);
  if (!names) throw new Error("This run has no scores of its heads to draw.");
  const [x, y] = await Promise.all([names.x, names.y].map((name) => source.scores(data.run, name, data.info.steps, data.isOfText ? data.probe : null)));
  return { x: { name: names.x, ...x }, y: { name: names.y, ...y } };
}

/** The names of the axes: those chosen, else the strongest of the newest step; null if the run has no scores. */
function scatterNames(data, { x, y }) {
  const known = offered(data);
  if (!known.length) return null;
  const choice = [...clearestScores(scoredIn(data)), ...known];
  const first = known.includes(x) ? x : (choice.find((name) => name !== y) ?? y);
  return { x: first, y: known.includes(y) ? y : (choice.find((name) => name !== first) ?? first) };
}

/** The newest scores of the text that heads are scored on. */
const scoredIn = ({ info: { newest }, isOfText, probe }) => (isOfText ? newest.probes[probe] : newest);

/** Their names. */
const offered = (data) => Object.keys(scoredIn(data)?.scores ?? {});

function drawScatter(root, { state, data, theme, extra }, act) {
  root.act = act;
  root.parts ??= buildScatter(root);
  const { hint, svg, x, y } = root.parts;
  root.points = [];
  svg.replaceChildren();
  if (!extra?.x) {
    hint.textContent = data.extraFault || "The scores are loading …";
    return;
  }
  const options = offered(data).map((name) => ({ value: name, label: scoreTitle(name), title: meaning(name) }));
  fillSelect(x, options, extra.x.name);
  fillSelect(y, options, extra.y.name);
  x.title = meaning(extra.x.name);
  y.title = meaning(extra.y.name);
  const drawing = scatterOf(state, data, theme, extra);
  root.points = drawing.points;
  hint.replaceChildren(`Step ${data.step}, on ${scoredOn(data)}. Dashed: a head that attends to all tokens alike. `, onScreen("Click a head to choose it, once more to read it."));
  svg.setAttribute("aria-label", `${drawing.points.length} heads: ${drawing.titles.y} against ${drawing.titles.x} at step ${data.step}`);
  const layout = scatterLayout(drawing, svg.clientWidth, svg.clientHeight);
  drawPoints(svg, layout, drawing, theme);
}

/** What is drawn: {titles, chance, extents, points: [{head, x, y, name, colour, isChosen, lines}], trail: [[x, y], …]}. */
function scatterOf(state, data, theme, { x, y }) {
  const { first } = data;
  const at = x.steps.indexOf(data.step);
  const titles = { x: scoreTitle(x.name), y: scoreTitle(y.name) };
  const placeOf = (head, index) => [x.values[index]?.[head] ?? null, y.values[index]?.[head] ?? null];
  const isWhole = (place) => place.every((value) => value !== null);
  const points = Array.from({ length: first.count }, (_, head) => head).filter((head) => isWhole(placeOf(head, at)));
  const trail = x.steps.slice(0, at + 1).map((_, index) => placeOf(state.head, index)).filter(isWhole);
  return {
    titles,
    chance: { x: x.chance[at] ?? null, y: y.chance[at] ?? null },
    extents: { x: extentOf(x), y: extentOf(y) },
    trail,
    points: points.map((head) => {
      const [valueX, valueY] = placeOf(head, at);
      const role = first.roles[head] ? [`role: ${first.roles[head]}`] : [];
      return {
        head,
        x: valueX,
        y: valueY,
        name: headName(head, first.heads, true),
        colour: headColour(theme, head, first.heads),
        isChosen: head === state.head,
        lines: [headName(head, first.heads), ...role, `${titles.x} ${figure(valueX)}`, `${titles.y} ${figure(valueY)}`],
      };
    }),
  };
}

/** The least and the greatest value of a score at all steps, chance among them, so that the axis never moves. */
function extentOf({ values, chance }) {
  let [least, greatest] = [Infinity, -Infinity];
  for (const row of [...values, chance]) {
    for (const value of row ?? []) {
      if (value === null) continue;
      least = Math.min(least, value);
      greatest = Math.max(greatest, value);
    }
  }
  return least > greatest ? [0, 1] : [least, greatest];
}

function buildScatter(root) {
  const choose = (name) => (event) => root.act.change({ scatter: { x: parts.x.value, y: parts.y.value, [name]: event.target.value } });
  const axis = (name, label) => element("select", { "aria-label": label, onchange: choose(name) });
  const parts = {
    x: axis("x", "Score of the horizontal axis"),
    y: axis("y", "Score of the vertical axis"),
    hint: element("p", { class: "hint" }),
    svg: shape("svg", { class: "plot", role: "img" }),
  };
  const pointOf = (event) => root.points.find((point) => String(point.head) === event.target.dataset?.head);
  parts.svg.addEventListener("pointermove", (event) => root.act.tell(pointOf(event)?.lines ?? null, event));
  parts.svg.addEventListener("pointerleave", () => root.act.tell(null));
  parts.svg.addEventListener("click", (event) => openHead(root, pointOf(event), event));
  const field = (label, control) => element("label", { class: "field" }, element("span", {}, label), control);
  root.append(element("div", { class: "tools" }, field("Across", parts.x), field("Up", parts.y)), parts.hint, parts.svg);
  return parts;
}

/** Choose a head; one that is chosen already is opened in the view that a run opens with. */
function openHead(root, point, event) {
  if (!point) return;
  const isAdded = event.shiftKey || event.ctrlKey || event.metaKey;
  if (point.isChosen && !isAdded) root.act.change({ view: START.view });
  else root.act.chooseHead(point.head, isAdded);
}
