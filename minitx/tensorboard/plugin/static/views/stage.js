// One large view of a pattern: a canvas in a box that scrolls if the text is longer than the box.
//
// Only the visible part is drawn, so a long text costs no more than a short one. The canvas sticks to the box while a
// spacer as large as the layout scrolls behind it.

import { element, onScreen, paintCanvas } from "../draw/dom.js";
import { difference, weightAt } from "../data/snapshot.js";
import { drawMap, strongestOfBlock } from "../draw/heatmap.js";
import { mapHit, mapLayout } from "../draw/map_layout.js";
import { arcsHit, arcsLayout, chooseLines, columnsHit, columnsLayout, drawArcs, drawColumns } from "../draw/lines.js";
import { figure } from "../state/scores.js";
import { unitName } from "../state/units.js";

export const LEGEND = [[0, "0"], [80, "0.1"], [128, "0.25"], [180, "0.5"], [255, "1"]];
const DIFFERENCE_LEGEND = [[0, "−1"], [64, "−0.25"], [128, "0"], [191, "+0.25"], [255, "+1"]];

/**
 * A stage. It calls hover(focus, event, stage), press(focus), ask(number of a link) where its label is clicked on, and
 * keys(event, stage); focus is the place pointed at.
 */
export function createStage({ hover, press, ask, keys }) {
  const title = element("h3", { class: "stage-title" });
  const canvas = element("canvas");
  const spacer = element("div", { class: "spacer" });
  const box = element("div", { class: "stage-box", tabindex: 0, role: "application" }, canvas, spacer);
  const magnify = element("span", { class: "segments magnify", "data-screen": true, hidden: true });
  const bar = element("div", { class: "stage-bar" }, title, magnify);
  const stage = { root: element("section", { class: "stage", hidden: true }, bar, box), title, magnify, box, canvas, layout: null, hit: null };
  const pointOf = (event) => {
    const place = canvas.getBoundingClientRect();
    return [event.clientX - place.left + box.scrollLeft, event.clientY - place.top + box.scrollTop];
  };
  const focusAt = (event) => stage.hit?.(...pointOf(event)) ?? null;
  const labelAt = (event) => labelUnder(stage.layout?.labels, ...pointOf(event));
  box.addEventListener("pointermove", (event) => {
    box.classList.toggle("on-label", Boolean(labelAt(event)));
    hover(focusAt(event), event, stage);
  });
  box.addEventListener("pointerleave", (event) => hover(null, event, stage));
  box.addEventListener("click", (event) => {
    if (stage.wasDragged) return;
    const label = labelAt(event);
    if (label) ask(label.number);
    else press(focusAt(event));
  });
  box.addEventListener("keydown", (event) => keys(event, stage));
  box.addEventListener("scroll", () => stage.redraw?.());
  return stage;
}

const labelUnder = (labels, x, y) => labels?.find((label) => x >= label.x && x < label.x + label.width && y >= label.y && y < label.y + label.height);

/**
 * Draw `content` on a stage: {title, help, view, probe, links, head, heads: [{head, packed, colour}], against: packed or
 * undefined}. With `against` it draws `against` minus the first head's pattern. A map is drawn at options.zoom. Sets
 * stage.hit, and stage.used, the height that is drawn on.
 */
export function drawStage(stage, content, focus, options, theme) {
  const { probe, heads, view, against, links } = content;
  const { box, canvas } = stage;
  stage.content = content;
  stage.title.replaceChildren(content.title, onScreen(content.help));
  box.setAttribute("aria-label", `${content.title}; arrow keys move over tokens, Enter pins one, Escape unpins it`);
  const [width, height] = [Math.max(120, box.clientWidth), Math.max(160, box.clientHeight)];
  const measure = canvas.getContext("2d");
  const text = { tokens: probe.tokens, unit: unitName(probe), links, heads };
  let layout;
  let paint;
  if (view === "map") {
    const plain = heads[0].packed;
    layout = mapLayout(measure, probe.tokens, width, height, theme.font, options.zoom);
    const map = {
      tokens: probe.tokens,
      links,
      levels: against ? difference(plain, against) : plain,
      middle: against ? 127 : 0,
      table: against ? theme.diverging : theme.ramp,
      legend: against ? DIFFERENCE_LEGEND : LEGEND,
      value: (query, key) => {
        const weight = weightAt(plain, query, key);
        return against ? signed(weightAt(against, query, key) - weight) : figure(weight);
      },
    };
    stage.hit = (x, y) => {
      const found = mapHit(layout, x, y, [box.scrollLeft, box.scrollTop]);
      if (!found || layout.block === 1) return found;
      const { query, key } = strongestOfBlock(map.levels, probe.seq, layout.block, map.middle, found);
      return { query, key };
    };
    paint = (context, x, y) => drawMap(context, layout, map, focus, theme, x, y);
  } else if (view === "columns") {
    layout = columnsLayout(measure, probe.tokens, width, height, heads.length, theme.font);
    text.lines = chooseLines(heads, probe.seq, focus, options.first);
    stage.hit = (x, y) => columnsHit(layout, x, y);
    paint = (context, x, y) => drawColumns(context, layout, text, focus, theme, y, y + height);
  } else {
    layout = arcsLayout(measure, probe.tokens, width, height, theme.font);
    text.lines = chooseLines(heads, probe.seq, focus, options.first);
    stage.hit = (x, y) => arcsHit(layout, x, y);
    paint = (context, x) => drawArcs(context, layout, text, focus, theme, x, x + width);
  }
  stage.layout = layout;
  stage.used = Math.min(height, view === "map" ? layout.top + layout.side + layout.margin + 4 : layout.height);
  const spacer = box.lastElementChild;
  const isMap = view === "map";
  if (isMap && layout.block > 1) stage.title.textContent = `${against ? "Difference. " : ""}A square: the strongest of ${layout.block} × ${layout.block} ${probe.units}`;
  spacer.style.width = `${isMap && layout.wide > width ? layout.wide : view === "arcs" ? layout.width : 1}px`;
  spacer.style.height = `${isMap && layout.high > height ? layout.high : view === "columns" ? layout.height : 1}px`;
  box.classList.toggle("map", isMap);
  stage.magnify.hidden = !isMap || layout.mostZoom === 1;
  const [out, into, fit] = stage.magnify.children;
  out.disabled = fit.disabled = options.zoom <= 1;
  into.disabled = options.zoom >= layout.mostZoom;
  const painted = (context) => {
    context.translate(-box.scrollLeft, -box.scrollTop);
    paint(context, box.scrollLeft, box.scrollTop);
  };
  stage.redraw = () => paintCanvas(canvas, width, height, painted);
  stage.redraw();
}

/** Scroll to the token in focus. */
export function showFocus(stage, focus) {
  const { box, layout, content } = stage;
  if (content?.view === "map" && focus && layout && (focus.query ?? focus.key) !== null) showCell(box, layout, focus);
  const index = focus?.query ?? focus?.key;
  if (index === undefined || index === null || !layout) return;
  if (content.view === "columns") {
    const y = layout.top + index * layout.row;
    if (y < box.scrollTop || y > box.scrollTop + box.clientHeight - layout.row) box.scrollTop = y - box.clientHeight / 2;
  } else if (content.view === "arcs") {
    const { x } = layout.places[index];
    if (x < box.scrollLeft || x > box.scrollLeft + box.clientWidth - 60) box.scrollLeft = x - box.clientWidth / 2;
  }
}

/** Scroll a zoomed map so that its cell in focus is seen. */
function showCell(box, { cell, left, top, margin }, { query, key }) {
  const [x, y] = [(key ?? 0) * cell, (query ?? 0) * cell];
  const [width, height] = [box.clientWidth - left, box.clientHeight - top - margin];
  if (x < box.scrollLeft || x + cell > box.scrollLeft + width) box.scrollLeft = x - width / 2;
  if (y < box.scrollTop || y + cell > box.scrollTop + height) box.scrollTop = y - height / 2;
}

/** `focus` if the text of `content` has its tokens, else null. */
export const fitting = (focus, { probe, probes }) => (focus && Math.max(focus.query ?? 0, focus.key ?? 0) < (probe ?? probes[0]).seq ? focus : null);

export function signed(value) {
  return `${value < 0 ? "−" : "+"}${figure(Math.abs(value))}`;
}
