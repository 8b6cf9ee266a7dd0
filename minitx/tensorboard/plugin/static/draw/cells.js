// Vectors as strips of cells, and the other small shapes of a drawing in SVG.

import { figure } from "../state/scores.js";

/** The name under which SVG elements are made, as the browser itself gives it. */
const SVG_NAMESPACE = new DOMParser().parseFromString("<svg></svg>", "text/html").querySelector("svg").namespaceURI;

/** A new SVG element. */
export function shape(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG_NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** `made`, which calls tell(lines, event) while it is pointed at, and click() when it is clicked. */
export function told(made, tell, lines, click = null) {
  made.addEventListener("pointermove", (event) => tell(typeof lines === "function" ? lines(event) : lines, event));
  made.addEventListener("pointerleave", () => tell(null));
  if (click) made.addEventListener("click", click);
  return made;
}

/** A line of text whose middle is at height y. */
export function textAt(text, x, y, attributes = {}) {
  return shape("text", { x, y, "dominant-baseline": "central", ...attributes }, text);
}

/** The largest size of a number in `vectors`, [{cells}], by which their cells are drawn; above 0. */
export function reachOf(vectors) {
  return Math.max(1e-9, ...vectors.flatMap((one) => one.cells.map(Math.abs)));
}

/**
 * A vector, {cells, length}, as a strip, {x, y, width, height}: a cell is in the upper half for a number above 0, in the
 * lower half for one below, the darker the larger. `reach` is the number of the darkest. Pointing at a cell tells `lines`
 * and its number; `averaged` numbers share a cell.
 */
export function cellStrip({ cells, length }, { x, y, width, height }, { colour, reach, averaged, lines, tell }) {
  const step = width / cells.length;
  const gap = step > 5 ? 1 : step > 2.5 ? 0.5 : 0;
  const marks = cells.map((cell, index) => {
    const half = { x: x + index * step + gap / 2, y: cell < 0 ? y + height / 2 : y, width: step - gap, height: height / 2 };
    const part = Math.min(1, Math.abs(cell) / reach);
    return shape("rect", { ...half, fill: colour, opacity: (0.05 + 0.95 * part ** 0.7).toFixed(2) });
  });
  const about = (event) => {
    const place = Math.floor((event.clientX - event.currentTarget.getBoundingClientRect().left) / step);
    const index = Math.min(cells.length - 1, Math.max(0, place));
    const name = averaged > 1 ? `numbers ${index * averaged + 1} to ${(index + 1) * averaged}, averaged` : `number ${index + 1}`;
    return [...lines, `${name}: ${figure(cells[index])}`, `length of the whole vector: ${figure(length)}`];
  };
  const ground = shape("rect", { x, y, width, height, fill: colour, opacity: 0.1 });
  const over = told(shape("rect", { x, y, width, height, fill: "transparent" }), tell, about);
  return shape("g", { class: "strip" }, ground, ...marks, over);
}

/** A bar of `part` (0 to 1) of a place's width, on a faint ground as wide as the place. */
export function partBar(part, { x, y, width, height }, colour) {
  const bar = { x, y, height, rx: 2, fill: colour };
  const size = Math.max(part > 0 ? 1 : 0, width * Math.min(1, part));
  return shape("g", {}, shape("rect", { ...bar, width, opacity: 0.12 }), shape("rect", { ...bar, width: size }));
}

/** A band that joins `from` above with `to` below, each {x, y, width}. */
export function ribbon(from, to, colour) {
  const middle = (from.y + to.y) / 2;
  const side = (x, y, toX, toY) => `${x} ${y}C${x} ${middle} ${toX} ${middle} ${toX} ${toY}`;
  const path = `M${side(from.x, from.y, to.x, to.y)}L${side(to.x + to.width, to.y, from.x + from.width, from.y)}Z`;
  return shape("path", { d: path, fill: colour, opacity: 0.28 });
}

/** The first of `texts` that fits into `width`; "" if none does. */
export function longestOf(texts, width, fit) {
  return texts.find((text) => fit(text, width) === text) ?? "";
}

/** A token as a word: without the sign of its leading space. */
export function wordLabel(token) {
  return token.replace(/^␣(?=.)/, "");
}
