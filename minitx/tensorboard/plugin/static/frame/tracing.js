// Draws what the page shows as shapes: boxes, borders, texts, canvases, drawings. Any program can open the result, which
// holds no markup. An element with the attribute data-screen (see dom.js) is for the screen alone.

import { shorten } from "../draw/heatmap.js";
import { imageOf, paintOf, vector, vectorContext } from "../draw/svg.js";
import { traceGround } from "./grounds.js";

const SIDES = ["Top", "Right", "Bottom", "Left"];
const COPIED = ["fill", "fill-opacity", "stroke", "stroke-opacity", "stroke-width", "stroke-dasharray", "stroke-linecap", "font-family", "font-size", "font-weight", "font-style", "text-anchor", "dominant-baseline", "paint-order"];
const ruler = document.createElement("canvas").getContext("2d");

/** Append the contents of `root` to `into`, the root's corner at (x, y); what its own scroll bar hides is drawn too. */
export function trace(root, into, x, y) {
  const { left, top } = root.getBoundingClientRect();
  const shift = { x: x - left + root.scrollLeft, y: y - top + root.scrollTop };
  for (const child of root.childNodes) traceNode(child, into, shift);
}

function traceNode(node, into, shift) {
  if (node.nodeType === Node.TEXT_NODE) return traceText(node, into, shift);
  if (node.nodeType !== Node.ELEMENT_NODE) return undefined;
  const style = getComputedStyle(node);
  const boxes = [...node.getClientRects()].map(({ left, top, width, height }) => ({ x: left + shift.x, y: top + shift.y, width, height }));
  if (node.hasAttribute("data-screen") || (style.display !== "contents" && (!boxes.length || !isShown(node)))) return undefined;
  const group = style.opacity < 1 ? vector("g", { opacity: style.opacity }) : into;
  if (group !== into) into.append(group);
  for (const box of boxes) traceBox(box, style, group);
  if (node.localName === "canvas") return traceCanvas(node, boxes[0], style, group);
  if (node.localName === "svg") return group.append(copyOf(node, boxes[0]));
  if (/^(input|select|textarea)$/.test(node.localName)) return traceControl(node, boxes[0], style, group);
  const inner = isCut(node, style) ? cut(group, node, shift) : group;
  traceBefore(node, boxes[0], style, inner);
  for (const child of node.childNodes) traceNode(child, inner, shift);
  return undefined;
}

/** Whether an element is neither hidden nor within <details> that are closed. */
const isShown = (node) => node.checkVisibility({ visibilityProperty: true });

/** Whether a part of the element's contents is hidden. */
function isCut(node, style) {
  const isLarger = node.scrollWidth > node.clientWidth + 1 || node.scrollHeight > node.clientHeight + 1;
  return style.overflow !== "visible" && isLarger && node.clientWidth > 0;
}

/** A group that shows only what lies within the element: a drawing in the drawing, which every program cuts off. */
function cut(into, node, shift) {
  const { left, top } = node.getBoundingClientRect();
  const [x, y, width, height] = [left + shift.x + node.clientLeft, top + shift.y + node.clientTop, node.clientWidth, node.clientHeight];
  const inner = vector("svg", { x, y, width, height, viewBox: [x, y, width, height].join(" ") });
  into.append(inner);
  return inner;
}

function traceBox({ x, y, width, height }, style, into) {
  const rx = parseFloat(style.borderTopLeftRadius) || null;
  traceGround({ x, y, width, height }, style, rx, into);
  const ring = /^(.+\)) 0px 0px 0px ([\d.]+)px$/.exec(style.boxShadow);
  if (ring) traceFrame({ x, y, width, height }, Number(ring[2]), -Number(ring[2]), ring[1], null, rx, into);
  const borders = SIDES.map((side) => [parseFloat(style[`border${side}Width`]), style[`border${side}Color`], style[`border${side}Style`]]);
  const [thick, colour, kind] = borders[0];
  if (borders.every((border) => border.join() === borders[0].join())) traceFrame({ x, y, width, height }, kind === "none" ? 0 : thick, 0, colour, kind, rx, into);
  else for (const [side, border] of borders.entries()) if (border[2] !== "none" && border[0]) traceSide({ x, y, width, height }, side, border, into);
  const outline = style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth);
  if (outline) traceFrame({ x, y, width, height }, outline, -outline - parseFloat(style.outlineOffset), style.outlineColor, style.outlineStyle, rx, into);
}

/** A frame of a thickness whose outer edge lies `inset` within the box. */
function traceFrame({ x, y, width, height }, thick, inset, colour, kind, rx, into) {
  const paint = paintOf("stroke", colour);
  if (!thick || paint.stroke === "none") return;
  const off = inset + thick / 2;
  into.append(vector("rect", { x: x + off, y: y + off, width: Math.max(0, width - 2 * off), height: Math.max(0, height - 2 * off), rx: rx && Math.max(0, rx - off), fill: "none", ...paint, "stroke-width": thick, ...dashes(kind, thick) }));
}

function traceSide({ x, y, width, height }, side, [thick, colour, kind], into) {
  const paint = paintOf("stroke", colour);
  const half = thick / 2;
  const [x1, y1, x2, y2] = [[x, y + half, x + width, y + half], [x + width - half, y, x + width - half, y + height], [x, y + height - half, x + width, y + height - half], [x + half, y, x + half, y + height]][side];
  if (paint.stroke !== "none") into.append(vector("line", { x1, y1, x2, y2, ...paint, "stroke-width": thick, ...dashes(kind, thick) }));
}

const dashes = (kind, thick) => ({ "stroke-dasharray": { dashed: `${3 * thick} ${2 * thick}`, dotted: `${thick} ${thick}` }[kind] });

/** A text, line by line as the browser has broken it. */
function traceText(node, into, shift) {
  const style = getComputedStyle(node.parentElement);
  if (!node.data.trim() || style.visibility === "hidden") return;
  const right = Math.min(endOf(node.parentElement), endOf(node.parentElement.parentElement));
  for (const { text, box } of linesOf(node, style)) {
    ruler.font = fontOfStyle(style);
    const shown = box.right > right + 1 ? shorten(ruler, text, right - box.left) : text;
    writeLine(shown, { x: box.left + shift.x, y: box.top + shift.y, height: box.height }, style, into);
  }
}

/** Where an element ends its texts with "…". */
function endOf(node) {
  const style = getComputedStyle(node);
  const end = node.getBoundingClientRect().left + node.clientLeft + node.clientWidth - parseFloat(style.paddingRight);
  return style.textOverflow === "ellipsis" ? end : Infinity;
}

/** [{text, box}]: the lines of a text node. */
function linesOf(node, style) {
  const range = document.createRange();
  const isKept = style.whiteSpace.startsWith("pre") || style.whiteSpace === "break-spaces";
  const tidy = (text) => (isKept ? text.replace(/\n/g, "") : text.replace(/\s+/g, " ").trim());
  range.selectNodeContents(node);
  if (!isKept) range.setStart(node, node.data.search(/\S/)); // a space before the text moves it, or is not shown at all
  const boxes = [...range.getClientRects()];
  if (boxes.length < 2) return boxes.map((box) => ({ text: tidy(node.data), box }));
  const lines = [];
  let at = 0;
  for (const character of node.data) {
    range.setStart(node, at);
    range.setEnd(node, (at += character.length));
    const box = range.getBoundingClientRect();
    const line = lines.at(-1);
    if (line && (!box.width || Math.abs(box.top - line.box.top) < box.height / 2)) line.text += character;
    else if (box.width && (isKept || character.trim())) lines.push({ text: character, box });
  }
  return lines.map(({ text, box }) => ({ text: tidy(text), box }));
}

const fontOfStyle = ({ fontStyle, fontWeight, fontSize, fontFamily }) => `${fontStyle} ${fontWeight} ${fontSize} ${fontFamily}`;

/** Write a line whose box, {x, y, height}, is that of its font. */
function writeLine(text, { x, y, height }, style, into) {
  const shown = style.textTransform === "uppercase" ? text.toUpperCase() : text;
  ruler.font = fontOfStyle(style);
  const { fontBoundingBoxAscent: up, fontBoundingBoxDescent: down } = ruler.measureText(shown);
  const decoration = style.textDecorationLine === "none" ? null : style.textDecorationLine;
  const font = { "font-family": style.fontFamily, "font-size": parseFloat(style.fontSize), "font-weight": style.fontWeight === "400" ? null : style.fontWeight, "font-style": style.fontStyle === "normal" ? null : style.fontStyle };
  into.append(vector("text", { x, y: y + height / 2 + (up - down) / 2, ...font, ...paintOf("fill", style.color), "text-decoration": decoration, style: "white-space: pre" }, shown));
}

/** The text that the style puts before an element, as the mark of a button that is on. */
function traceBefore(node, box, style, into) {
  const before = getComputedStyle(node, "::before");
  const text = /^"(.+)"$/.exec(before.content)?.[1];
  const left = parseFloat(style.paddingLeft) + parseFloat(style.borderLeftWidth);
  if (text && box) writeLine(text, { ...box, x: box.x + left }, before, into);
}

function traceControl(node, box, style, into) {
  const isMark = node.type === "checkbox" || node.type === "radio";
  const text = isMark ? (node.checked ? "☑" : "☐") : (node.selectedOptions?.[0]?.label ?? node.value);
  const left = isMark ? 0 : parseFloat(style.paddingLeft) + parseFloat(style.borderLeftWidth);
  if (node.type !== "range") writeLine(text, { ...box, x: box.x + left }, style, into);
}

/** A canvas that can be painted again becomes shapes, any other a picture. */
function traceCanvas(canvas, { x, y, width, height }, style, into) {
  const inner = vector("svg", { x, y, width, height });
  try {
    if (!canvas.paint) throw new Error("a canvas of pixels");
    canvas.paint(vectorContext(inner));
  } catch {
    inner.replaceChildren(imageOf(canvas, 0, 0, width, height, style.imageRendering !== "pixelated"));
  }
  into.append(inner);
}

/** A copy of a drawing, with the style that it has by the page's rules. */
function copyOf(svg, { x, y, width, height }) {
  const copy = svg.cloneNode(true);
  dress(svg, copy, {});
  for (const [name, value] of Object.entries({ x, y, width, height })) copy.setAttribute(name, value);
  return copy;
}

function dress(node, copy, above) {
  const style = getComputedStyle(node);
  const own = Object.fromEntries(COPIED.map((name) => [name, style.getPropertyValue(name)]));
  for (const name of ["fill", "stroke"]) {
    if (/^(none|url)/.test(own[name])) continue;
    const paint = paintOf(name, own[name]);
    own[name] = paint[name];
    own[`${name}-opacity`] = String((paint[`${name}-opacity`] ?? 1) * own[`${name}-opacity`]);
  }
  for (const name of ["class", "style", "tabindex", "role", ...COPIED]) copy.removeAttribute(name);
  for (const name of COPIED) if (own[name] !== above[name]) copy.setAttribute(name, own[name]);
  if (node.localName === "text") copy.setAttribute("style", `white-space: ${style.whiteSpace}`);
  if (style.opacity < 1) copy.setAttribute("opacity", style.opacity);
  if (style.display === "none" || style.visibility === "hidden") copy.setAttribute("display", "none");
  for (const [index, child] of [...node.children].entries()) dress(child, copy.children[index], own);
}
