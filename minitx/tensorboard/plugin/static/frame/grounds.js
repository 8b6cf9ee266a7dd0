// Draws the backgrounds of boxes as shapes: a colour, and linear gradients, which views use for bars and stripes.

import { paintOf, vector } from "../draw/svg.js";

let gradients = 0; // every gradient of a picture has a name of its own

/** Append the background of a box, {x, y, width, height}, to `into`. */
export function traceGround(box, style, rx, into) {
  const place = style.backgroundClip === "content-box" ? contentOf(box, style) : box;
  const ground = paintOf("fill", style.backgroundColor);
  if (ground.fill !== "none") into.append(vector("rect", { ...place, rx, ...ground }));
  if (style.backgroundImage === "none") return;
  const [positions, sizes] = [split(style.backgroundPosition), split(style.backgroundSize)];
  for (const [at, image] of [...split(style.backgroundImage).entries()].reverse()) {
    const layer = layerOfBox(box, positions[at % positions.length], sizes[at % sizes.length]);
    const gradient = gradientOf(image, layer);
    if (!gradient) continue;
    gradient.id = `gradient-${++gradients}`;
    into.append(gradient, vector("rect", { ...layer, rx, fill: `url(#${gradient.id})` }));
  }
}

function contentOf({ x, y, width, height }, style) {
  const [top, right, bottom, left] = ["Top", "Right", "Bottom", "Left"].map((side) => parseFloat(style[`padding${side}`]) + parseFloat(style[`border${side}Width`]));
  return { x: x + left, y: y + top, width: Math.max(0, width - left - right), height: Math.max(0, height - top - bottom) };
}

/** The parts of a list of CSS that are separated by commas outside of brackets, or by `mark`. */
function split(text, mark = ",") {
  const parts = [""];
  let depth = 0;
  for (const letter of text) {
    depth += { "(": 1, ")": -1 }[letter] ?? 0;
    if (letter === mark && !depth) parts.push("");
    else parts[parts.length - 1] += letter;
  }
  return parts.map((part) => part.trim()).filter(Boolean);
}

/** A length of CSS, as 3px, 50%, or calc(100% - 3px), of a whole. */
function lengthOf(text, whole) {
  const [share, sign, pixels] = [/(-?[\d.]+)%/.exec(text)?.[1] ?? 0, /- [\d.]+px/.test(text) ? -1 : 1, /(-?[\d.]+)px/.exec(text)?.[1] ?? 0];
  return (share / 100) * whole + sign * pixels;
}

/** The part of a box that one layer of its background fills. */
function layerOfBox({ x, y, width, height }, position, size) {
  const [wide, high] = split(size, " ");
  const [across, down] = split(position, " ");
  const area = { width: /\d/.test(wide) ? lengthOf(wide, width) : width, height: /\d/.test(high ?? "") ? lengthOf(high, height) : height };
  return { x: x + lengthOf(across, width - area.width), y: y + lengthOf(down ?? "0", height - area.height), ...area };
}

/** A linear gradient of CSS over an area, or null for any other image. */
function gradientOf(image, { x, y, width, height }) {
  const [, kind, inner] = /^(repeating-)?linear-gradient\((.*)\)$/.exec(image) ?? [];
  if (!inner) return null;
  const parts = split(inner);
  const named = { "to right": 90, "to left": 270, "to top": 0, "to bottom": 180 }[parts[0]] ?? (/^-?[\d.]+deg$/.test(parts[0]) ? parseFloat(parts[0]) : null);
  const angle = ((named ?? 180) * Math.PI) / 180;
  const [dx, dy] = [Math.sin(angle), -Math.cos(angle)];
  const whole = Math.abs(width * dx) + Math.abs(height * dy);
  const stops = (named === null ? parts : parts.slice(1)).flatMap((part) => {
    const [colour, ...places] = split(part, " ");
    return places.length ? places.map((place) => [colour, lengthOf(place, whole)]) : [[colour, null]];
  });
  for (const [at, stop] of stops.entries()) stop[1] ??= at === 0 ? 0 : at === stops.length - 1 ? whole : (stops[at - 1][1] + whole) / 2;
  const length = kind ? stops.at(-1)[1] : whole;
  const [x1, y1] = [x + width / 2 - (dx * whole) / 2, y + height / 2 - (dy * whole) / 2];
  const made = vector("linearGradient", { gradientUnits: "userSpaceOnUse", x1, y1, x2: x1 + dx * length, y2: y1 + dy * length, spreadMethod: kind ? "repeat" : null });
  for (const [colour, place] of stops) {
    const paint = paintOf("stop-color", colour);
    const isClear = paint["stop-color"] === "none";
    made.append(vector("stop", { offset: String(place / Math.max(length, 1e-9)), "stop-color": isClear ? "#808080" : paint["stop-color"], "stop-opacity": isClear ? 0 : paint["stop-color-opacity"] }));
  }
  return made;
}
