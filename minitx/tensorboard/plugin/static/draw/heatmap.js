// Heat maps: a head's pattern with its tokens, the difference of two, and the thumbnails of the survey.
//
// A layout is computed from the tokens and the room. Drawing and hit-testing both use it, so the pointer names exactly
// what lies under it. Rows are queries, columns are keys.

import { LABEL_HEIGHT, drawLabel, freePlace, labelWidth } from "./labels.js";
import { pairIndex } from "../data/snapshot.js";
import { tableColour } from "./theme.js";

const MAX_CELL = 44;
const MIN_LABELLED_CELL = 8;
const MAX_LABEL = 110;

/** The layout of a map of `tokens` in (width, height): {cell, left, top, side, labelled, …}. */
export function mapLayout(context, tokens, width, height, font) {
  context.font = font;
  const widest = Math.min(MAX_LABEL, Math.max(...tokens.map((token) => context.measureText(token).width)) + 10);
  const labelled = Math.min(width, height) - widest - 8 >= MIN_LABELLED_CELL * tokens.length;
  const margin = labelled ? widest : 14;
  const room = Math.max(40, Math.min(width - margin - 6, height - margin - 6));
  let cell = Math.min(MAX_CELL, room / tokens.length);
  if (cell >= 4) cell = Math.floor(cell);
  const side = cell * tokens.length;
  const left = margin + Math.max(0, (width - margin - side - 6) / 2);
  return { cell, left, top: 4, side, margin, labelled, width, seq: tokens.length };
}

/** The cell under a point, {query, key}, or null. */
export function mapHit(layout, x, y) {
  const query = Math.floor((y - layout.top) / layout.cell);
  const key = Math.floor((x - layout.left) / layout.cell);
  const inside = query >= 0 && query < layout.seq && key >= 0 && key <= query;
  return inside ? { query, key } : null;
}

/** Draw packed levels (`side` rows) as an image of side × side pixels in colours of `table`. */
export function patternImage(levels, side, table) {
  const image = new ImageData(side, side);
  const [from, into] = [new Uint32Array(table.buffer), new Uint32Array(image.data.buffer)];
  let at = 0;
  for (let query = 0; query < side; query++) {
    const row = query * side;
    for (let key = 0; key <= query; key++) into[row + key] = from[levels[at++]];
  }
  return image;
}

/** The thumbnail of a head on its own canvas, a pixel for each entry. */
export function drawThumbnail(canvas, levels, side, table) {
  if (canvas.width !== side) canvas.width = canvas.height = side;
  canvas.getContext("2d").putImageData(patternImage(levels, side, table), 0, 0);
}

/**
 * Draw a pattern with labels, scale and links; the row and column of `focus` are highlighted.
 * `map` is {tokens, links, levels, table, legend: [[level, label], …]}.
 */
export function drawMap(context, layout, map, focus, theme) {
  const { cell, left, top, side, seq } = layout;
  context.imageSmoothingEnabled = cell < 1; // without smoothing rows would be left out
  const small = document.createElement("canvas");
  drawThumbnail(small, map.levels, seq, map.table);
  context.drawImage(small, left, top, side, side);
  context.strokeStyle = theme.line;
  context.lineWidth = 1;
  if (cell >= 12) drawGaps(context, layout, theme);
  drawStairs(context, layout, theme);
  if (layout.labelled) drawLabels(context, layout, map.tokens, focus, theme);
  else drawAxes(context, layout, theme);
  drawScale(context, layout, map, theme);
  drawLinkFrames(context, layout, map.links, theme);
  if (focus) drawFocus(context, layout, map, focus, theme);
}

/** Thin gaps between cells that are large enough to stand alone. */
function drawGaps(context, { cell, left, top, seq }, theme) {
  context.strokeStyle = theme.panel;
  context.beginPath();
  for (let at = 1; at < seq; at++) {
    context.moveTo(left, top + at * cell + 0.5);
    context.lineTo(left + (at + 1) * cell, top + at * cell + 0.5);
    context.moveTo(left + at * cell + 0.5, top + (at - 1) * cell);
    context.lineTo(left + at * cell + 0.5, top + seq * cell);
  }
  context.stroke();
}

/** The outline of the causal half. */
function drawStairs(context, { cell, left, top, side, seq }, theme) {
  context.strokeStyle = theme.line;
  context.beginPath();
  context.moveTo(left - 0.5, top);
  context.lineTo(left - 0.5, top + side + 0.5);
  context.lineTo(left + side, top + side + 0.5);
  if (cell >= 4) {
    for (let at = seq; at > 0; at--) {
      context.lineTo(left + at * cell, top + (at - 1) * cell);
      context.lineTo(left + (at - 1) * cell, top + (at - 1) * cell);
    }
  }
  context.closePath();
  context.stroke();
}

function drawLabels(context, { cell, left, top, side, margin }, tokens, focus, theme) {
  context.font = theme.font.replace("12px", `${Math.min(12, cell)}px`);
  context.textBaseline = "middle";
  for (const [index, token] of tokens.entries()) {
    const middle = (index + 0.5) * cell;
    const text = shorten(context, token, margin - 8);
    context.textAlign = "right";
    context.fillStyle = focus && focus.query === index ? theme.accent : theme.ink;
    context.fillText(text, left - 5, top + middle);
    context.save();
    context.translate(left + middle, top + side + 5);
    context.rotate(-Math.PI / 2);
    context.fillStyle = focus && focus.key === index ? theme.accent : theme.ink;
    context.fillText(text, 0, 0);
    context.restore();
  }
}

function drawAxes(context, { left, top, side }, theme) {
  context.font = theme.font;
  context.fillStyle = theme.muted;
  context.textAlign = "center";
  context.textBaseline = "top";
  context.fillText("key →", left + side / 2, top + side + 2);
  context.save();
  context.translate(left - 3, top + side / 2);
  context.rotate(-Math.PI / 2);
  context.textBaseline = "bottom";
  context.fillText("← query", 0, 0);
  context.restore();
}

/** The colour scale, in the empty half after the query. */
function drawScale(context, { left, top, side }, map, theme) {
  const [width, height] = [10, Math.floor(Math.min(130, side * 0.34))];
  if (height < 40) return;
  const x = left + side - width - 38;
  context.font = theme.font;
  context.textAlign = "left";
  context.textBaseline = "middle";
  for (let at = 0; at < height; at++) {
    context.fillStyle = tableColour(map.table, Math.round(255 * (1 - at / (height - 1)))).css;
    context.fillRect(x, top + 6 + at, width, 1.5);
  }
  context.fillStyle = theme.muted;
  for (const [level, label] of map.legend) {
    context.fillText(label, x + width + 5, top + 6 + (1 - level / 255) * (height - 1));
  }
}

/** A frame around each link, with its name if it fits. */
function drawLinkFrames(context, layout, links, theme) {
  const { cell, left, top, side } = layout;
  const frames = links.map((link) => {
    const [[q0, q1], [k0, k1]] = [link.query, link.key];
    return { name: link.name, x: left + k0 * cell - 1, y: top + q0 * cell - 1, width: (k1 - k0) * cell + 2, height: (q1 - q0) * cell + 2 };
  });
  context.strokeStyle = theme.mark;
  context.lineWidth = 2;
  for (const { x, y, width, height } of frames) context.strokeRect(x, y, width, height);
  if (cell < MIN_LABELLED_CELL) return;
  // From right to left: the line from a name down to its frame then passes left of the names already placed.
  frames.sort((a, b) => b.x - a.x || b.y - a.y);
  const [taken, names] = [[], []];
  for (const frame of frames) {
    const width = labelWidth(context, frame.name, theme);
    const x = Math.max(0, Math.min(frame.x, layout.width - width));
    const at = (y) => ({ x, y, width, height: LABEL_HEIGHT });
    const places = [at(frame.y - LABEL_HEIGHT - 2)];
    if (frame.y + frame.height + LABEL_HEIGHT + 2 <= top + side) places.push(at(frame.y + frame.height + 2));
    for (let y = frame.y - 2 * (LABEL_HEIGHT + 3); y >= 0; y -= LABEL_HEIGHT + 3) places.push(at(y));
    const place = freePlace(places.filter(({ y }) => y >= 0), taken, frames.filter((other) => other !== frame));
    if (!place) continue;
    names.push([frame.name, place]);
    if (place.y + place.height + 4 >= frame.y) continue;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(frame.x, place.y + place.height);
    context.lineTo(frame.x, frame.y);
    context.stroke();
  }
  for (const [name, place] of names) drawLabel(context, name, place, theme);
}

/** Whether the query and the key in focus lie in the spans of a link: [query, key]. */
export function linkEnds(link, { query, key }) {
  const isWithin = (token, [start, end]) => token !== null && token >= start && token < end;
  return [isWithin(query, link.query), isWithin(key, link.key)];
}

function drawFocus(context, { cell, left, top, side, seq }, map, { query, key }, theme) {
  context.strokeStyle = theme.accent;
  context.lineWidth = 1;
  if (query !== null) context.strokeRect(left + 0.5, top + query * cell + 0.5, (query + 1) * cell - 1, Math.max(1, cell - 1));
  if (key !== null) context.strokeRect(left + key * cell + 0.5, top + key * cell + 0.5, Math.max(1, cell - 1), side - key * cell - 1);
  if (query === null || key === null || key > query || query >= seq) return;
  context.lineWidth = 2;
  const pad = cell < 8 ? 3 : 0;
  context.strokeRect(left + key * cell - pad, top + query * cell - pad, cell + 2 * pad, cell + 2 * pad);
  if (cell < 26) return;
  const colour = tableColour(map.table, map.levels[pairIndex(query, key)]);
  context.fillStyle = colour.isLight ? "#111" : "#fff";
  context.font = theme.font.replace("12px", "11px");
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillText(map.value(query, key), left + (key + 0.5) * cell, top + (query + 0.5) * cell);
}

/** `text`, cut with … to `width` pixels. */
export function shorten(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let length = text.length;
  while (length > 1 && context.measureText(`${text.slice(0, length)}…`).width > width) length--;
  return `${text.slice(0, length)}…`;
}
