// Points on two axes, in SVG: every head by two scores, with names where there is room.

import { shape } from "./cells.js";
import { freePlace } from "./labels.js";
import { figure } from "../state/scores.js";

const [LEFT, RIGHT, TOP, BOTTOM] = [52, 18, 12, 40];
const [NAME_HEIGHT, NAME_LETTER] = [14, 7]; // pixels of a name, and of a letter in it

/** Where values lie in (width, height): {x, y: value → pixel, ticksX, ticksY, left, right, top, bottom, radius}. */
export function scatterLayout({ extents, points }, width, height) {
  const [right, bottom] = [Math.max(LEFT + 40, width - RIGHT), Math.max(TOP + 40, height - BOTTOM)];
  const [x, y] = [padded(extents.x), padded(extents.y)];
  return {
    left: LEFT,
    right,
    top: TOP,
    bottom,
    x: (value) => LEFT + ((value - x[0]) / (x[1] - x[0])) * (right - LEFT),
    y: (value) => bottom - ((value - y[0]) / (y[1] - y[0])) * (bottom - TOP),
    ticksX: ticksOf(x, (right - LEFT) / 70),
    ticksY: ticksOf(y, (bottom - TOP) / 60),
    radius: points.length > 80 ? 5 : points.length > 20 ? 7 : 9,
  };
}

/** An extent with a little room on both sides. */
function padded([least, greatest]) {
  const room = greatest > least ? 0.05 * (greatest - least) : 0.5 * Math.abs(least) || 0.5;
  return [least - room, greatest + room];
}

/** Round values within an extent, about `count` of them. */
function ticksOf([low, high], count) {
  const rough = (high - low) / Math.max(2, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].find((factor) => factor * power >= rough) * power;
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, index) => (first + index) * step);
}

/** Draw the axes, chance, the trail and the points of scatter.js into an empty `svg`. */
export function drawPoints(svg, layout, drawing, theme) {
  const { left, right, top, bottom, x, y, radius } = layout;
  const write = (text, attributes) => svg.append(shape("text", { fill: theme.muted, "font-size": 11, ...attributes }, text));
  const line = (from, to, attributes) => svg.append(shape("line", { x1: from[0], y1: from[1], x2: to[0], y2: to[1], stroke: theme.line, ...attributes }));
  for (const value of layout.ticksX) {
    line([x(value), top], [x(value), bottom]);
    write(tickLabel(value), { x: x(value), y: bottom + 14, "text-anchor": "middle" });
  }
  for (const value of layout.ticksY) {
    line([left, y(value)], [right, y(value)]);
    write(tickLabel(value), { x: left - 6, y: y(value) + 4, "text-anchor": "end" });
  }
  const title = { fill: theme.ink, "font-size": 13, "font-weight": 600 };
  write(`${drawing.titles.x} →`, { ...title, x: right, y: bottom + 33, "text-anchor": "end" });
  write(`${drawing.titles.y} →`, { ...title, x: -top, y: 13, "text-anchor": "end", transform: "rotate(-90)" });
  const dashes = { class: "chance", stroke: theme.ink, "stroke-dasharray": "5 4" };
  const { chance } = drawing;
  const taken = []; // by the names of chance
  if (chance.x !== null) {
    line([x(chance.x), top], [x(chance.x), bottom], dashes);
    write("uniform", { x: x(chance.x) + 4, y: top + 10 });
    taken.push({ x: x(chance.x) + 4, y: top, width: 40, height: NAME_HEIGHT });
  }
  if (chance.y !== null) {
    line([left, y(chance.y)], [right, y(chance.y)], dashes);
    write("uniform", { x: right, y: y(chance.y) - 4, "text-anchor": "end" });
    taken.push({ x: right - 40, y: y(chance.y) - NAME_HEIGHT, width: 40, height: NAME_HEIGHT });
  }
  drawTrail(svg, layout, drawing);
  const inOrder = [...drawing.points].sort((a, b) => a.isChosen - b.isChosen); // the chosen one above the others
  for (const point of inOrder) {
    const place = { cx: x(point.x), cy: y(point.y) };
    if (point.isChosen) svg.append(shape("circle", { ...place, r: radius + 5, class: "ring", fill: "none", stroke: theme.ink, "stroke-width": 3 }));
    svg.append(shape("circle", { ...place, r: radius, class: "point", "data-head": point.head, fill: point.colour, stroke: theme.panel, "stroke-width": 1.5 }));
  }
  for (const { point, place } of namePlaces(layout, inOrder, taken)) {
    const weight = point.isChosen ? 700 : 400;
    write(point.name, { class: "point-name", fill: theme.ink, "font-weight": weight, "font-size": 12, x: place.x + place.width / 2, y: place.y + NAME_HEIGHT - 3, "text-anchor": "middle" });
  }
}

/** The way of the chosen head through the earlier steps. */
function drawTrail(svg, { x, y }, { trail, points }) {
  const colour = points.find((point) => point.isChosen)?.colour;
  if (!colour || trail.length < 2) return;
  const way = trail.map(([valueX, valueY]) => `${x(valueX).toFixed(1)},${y(valueY).toFixed(1)}`);
  svg.append(shape("polyline", { class: "trail", points: way.join(" "), fill: "none", stroke: colour, "stroke-width": 1.5, opacity: 0.4 }));
  for (const [valueX, valueY] of trail.slice(0, -1)) svg.append(shape("circle", { cx: x(valueX), cy: y(valueY), r: 2, fill: colour, opacity: 0.6 }));
}

/** [{point, place}]: a free place for the name beside each point that has one, the last points first; the chosen one has. */
function namePlaces(layout, points, taken) {
  const size = layout.radius;
  const spots = points.map((point) => ({ x: layout.x(point.x) - size, y: layout.y(point.y) - size, width: 2 * size, height: 2 * size }));
  taken.push(...spots);
  const found = [];
  for (const [index, point] of [...points.entries()].reverse()) {
    const [width, height] = [NAME_LETTER * point.name.length, NAME_HEIGHT];
    const gap = size + (point.isChosen ? 9 : 4);
    const [centreX, centreY] = [spots[index].x + size, spots[index].y + size];
    const [middleX, middleY] = [centreX - width / 2, centreY - height / 2];
    const around = [[centreX + gap, middleY], [centreX - gap - width, middleY], [middleX, centreY - gap - height], [middleX, centreY + gap]];
    const inside = around.map(([x, y]) => ({ x, y, width, height })).filter((place) => isWithin(place, layout));
    const place = freePlace(inside, taken) ?? (point.isChosen ? inside[0] : null);
    if (place) found.push({ point, place });
  }
  return found;
}

const isWithin = (place, layout) => place.x > layout.left && place.y > layout.top - 6 && place.x + place.width < layout.right + 16 && place.y + place.height < layout.bottom;

function tickLabel(value) {
  return Math.abs(value) < 1e-9 ? "0" : figure(value).replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "").replace("-", "−");
}
