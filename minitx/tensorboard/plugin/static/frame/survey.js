// The survey: a small pattern of every head, in the grid layers × heads or in the order of a score.

import { element } from "../draw/dom.js";
import { drawThumbnail } from "../draw/heatmap.js";
import { figure, headName, isOfTales, scorePlaces, scoreTitle } from "../state/scores.js";
import { headOrder } from "../state/state.js";
import { headColour, tableColour } from "../draw/theme.js";

const [MIN_CAPTIONED, MIN_NAMED] = [38, 88]; // widths of a column whose caption is a number, or a name and a number

/** The columns of heads in order: about as many as rows, but wide enough for their captions. */
function sortedColumns(count, width) {
  return Math.min(count, Math.max(4, Math.ceil(Math.sqrt(count))), Math.max(3, Math.floor(width / MIN_NAMED)));
}

/** Build the grid's cells again if the number or order of heads has changed; `grid.cells` holds them by head. */
function arrange(grid, snapshot, order, isSorted, handlers) {
  const columns = isSorted ? sortedColumns(order.length, grid.clientWidth) : snapshot.heads;
  grid.classList.toggle("many", !isSorted && grid.clientWidth / columns < MIN_CAPTIONED);
  const plan = `${snapshot.layers}.${snapshot.heads}.${isSorted}.${columns}.${order.join(".")}`;
  if (grid.plan === plan) return;
  grid.plan = plan;
  grid.order = order;
  grid.cells = new Map();
  grid.columns = columns;
  const children = [];
  if (!isSorted) {
    children.push(element("span", { class: "corner" }));
    for (let head = 0; head < snapshot.heads; head++) children.push(element("span", { class: "axis", title: `head ${head}` }, `H${head}`));
  }
  for (const [place, head] of order.entries()) {
    if (!isSorted && place % columns === 0) children.push(element("span", { class: "axis layer", title: `layer ${place / columns}` }, `L${place / columns}`));
    const canvas = element("canvas", { "aria-hidden": "true" });
    const caption = element("span", { class: "caption" });
    const cell = element(
      "button",
      {
        class: "cell",
        type: "button",
        "data-head": head,
        onclick: (event) => handlers.choose(head, event.shiftKey || event.ctrlKey || event.metaKey),
        onpointermove: (event) => handlers.hover(head, event),
        onpointerleave: () => handlers.hover(null),
        onkeydown: handlers.keys,
      },
      canvas,
      caption,
    );
    grid.cells.set(head, { cell, canvas, caption });
    children.push(cell);
  }
  grid.classList.toggle("sorted", isSorted);
  grid.style.setProperty("--columns", columns);
  grid.replaceChildren(...children);
}

/** Draw all thumbnails and captions of `snapshot` (of one probe); `state.values` are the scores that rank and colour. */
export function drawSurvey(grid, snapshot, state, theme, handlers) {
  const probe = snapshot.probes[0];
  const scores = state.values;
  const isSorted = state.sort && scores !== null;
  const keepsOrder = state.keepsOrder && grid.order?.length === snapshot.count;
  const order = keepsOrder ? grid.order : headOrder(snapshot.count, scores, isSorted);
  arrange(grid, snapshot, order, isSorted, handlers);
  const [places, hasMiddle] = scorePlaces(state.score, scores ?? [], state.chart?.values);
  for (const [head, { cell, canvas, caption }] of grid.cells) {
    drawThumbnail(canvas, probe.small(head), probe.side, theme.ramp);
    const value = scores?.[head] ?? null;
    const name = headName(head, snapshot.heads, true);
    const told = probe.has(head) ? (scores ? figure(value) : "") : "removed"; // by pruning
    caption.textContent = isSorted ? `${name}  ${told}` : told;
    if (value === null) {
      caption.style.background = caption.style.color = "";
    } else {
      const colour = tableColour(hasMiddle ? theme.diverging : theme.ramp, Math.round(255 * places[head]));
      caption.style.background = colour.css;
      caption.style.color = colour.isLight ? "#111" : "#fff";
    }
    const shownAt = state.shown.indexOf(head);
    cell.classList.toggle("removed", !probe.has(head));
    cell.classList.toggle("chosen", head === state.head);
    cell.classList.toggle("shown", shownAt >= 0);
    cell.style.setProperty("--head", headColour(theme, head, snapshot.heads));
    cell.setAttribute("aria-pressed", String(head === state.head));
    cell.tabIndex = head === state.head ? 0 : -1;
    cell.setAttribute("aria-label", [...describeHead(snapshot, head), probe.has(head) ? caption.textContent : ""].filter(Boolean).join(", "));
  }
}

/** Layer, head, role and scores of a head as short texts; of its scores in the tales, the greatest three. */
export function describeHead(snapshot, head) {
  const lines = [headName(head, snapshot.heads)];
  if (!snapshot.probes[0].has(head)) return [...lines, "This head was removed from the model."];
  if (snapshot.roles[head]) lines.push(`role: ${snapshot.roles[head]}`);
  const scores = Object.entries(snapshot.scores).map(([name, values]) => [name, values[head]]).filter(([, value]) => value !== null);
  const ofTales = scores.filter(([name]) => isOfTales(name)).sort(([, a], [, b]) => b - a);
  const chosen = [...scores.filter(([name]) => !isOfTales(name)), ...ofTales.slice(0, 3)];
  if (snapshot.scored_on) lines.push(`scores on ${snapshot.scored_on}`);
  return [...lines, ...chosen.map(([name, value]) => `${scoreTitle(name)} ${figure(value)}`)];
}

/** The head that an arrow key leads to from `head`, in the order of the grid. */
export function neighbour(grid, head, key) {
  const place = grid.order.indexOf(head);
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -grid.columns, ArrowDown: grid.columns }[key];
  const next = place + step;
  const sameRow = Math.floor(next / grid.columns) === Math.floor(place / grid.columns);
  if (Math.abs(step) === 1 && !sameRow && !grid.classList.contains("sorted") && grid.columns > 1) return head;
  return grid.order[next] ?? head;
}
