// Heat maps: a head's pattern with its tokens, the difference of two, and the thumbnails of the survey.
//
// Of a long text that is not zoomed, a drawn cell is the strongest entry of a block of tokens.

import { drawLinkFrames } from "./links.js";
import { mapView, tokensWithin } from "./map_layout.js";
import { pairIndex } from "../data/snapshot.js";
import { tableColour } from "./theme.js";

const [SCALE_WIDTH, SCALE_ROOM] = [10, 38];

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

/** The place of the entry farthest from `middle` in the block that (query, key) is in, and its level. */
export function strongestOfBlock(levels, seq, block, middle, { query, key }) {
  const [q0, k0] = [query - (query % block), key - (key % block)];
  let best = { query, key, level: levels[pairIndex(query, key)] };
  for (let q = q0; q < Math.min(seq, q0 + block); q++) {
    for (let k = k0; k < Math.min(q + 1, k0 + block); k++) {
      const level = levels[pairIndex(q, k)];
      if (Math.abs(level - middle) > Math.abs(best.level - middle)) best = { query: q, key: k, level };
    }
  }
  return best;
}

/** Packed levels of blocks, as `strongestOfBlock` gives them. */
function inBlocks(levels, seq, block, middle) {
  const side = Math.ceil(seq / block);
  const reduced = new Uint8Array(pairIndex(side, 0)).fill(middle);
  for (let query = 0, at = 0; query < seq; query++) {
    const row = pairIndex(Math.floor(query / block), 0);
    for (let key = 0; key <= query; key++, at++) {
      const into = row + Math.floor(key / block);
      if (Math.abs(levels[at] - middle) > Math.abs(reduced[into] - middle)) reduced[into] = levels[at];
    }
  }
  return reduced;
}

/**
 * Draw the part of a pattern that is seen after scrolling by (x, y), with labels, scale and links; the row and column of
 * `focus` are highlighted. `map` is {tokens, links, levels, middle: the level of nothing, table, legend: [[level, label], …]}.
 */
export function drawMap(context, layout, map, focus, theme, x, y) {
  const { seq } = layout;
  const view = mapView(layout, x, y);
  const columns = tokensWithin(layout, view.x - layout.left, view.x - layout.left + view.width);
  const rows = tokensWithin(layout, view.y - layout.top, view.y - layout.top + view.height);
  context.save();
  if (Math.min(view.width, view.height) < layout.side) {
    context.beginPath();
    context.rect(view.x - 1, view.y - 1, view.width + 2, view.height + 2);
    context.clip();
  }
  drawCells(context, layout, map, columns, rows);
  if (layout.cell >= 12) drawGaps(context, layout, Math.max(1, Math.min(rows[0], columns[0])), Math.min(seq, Math.max(rows[1], columns[1]) + 1), theme);
  drawStairs(context, layout, theme);
  const scale = drawScale(context, layout, map, view, theme);
  drawLinkFrames(context, layout, map.links, view, theme, scale);
  if (focus) drawFocus(context, layout, map, focus, theme);
  context.restore();
  drawLabels(context, layout, map.tokens, view, columns, rows, focus, theme);
}

/** The cells of a range of columns and rows, or blocks of them. */
function drawCells(context, { cell, left, top, block, seq }, map, columns, rows) {
  const levels = block > 1 ? inBlocks(map.levels, seq, block, map.middle) : map.levels;
  const [[k, toKey], [q, toQuery]] = [columns, rows].map(([start, end]) => [Math.floor(start / block), Math.ceil(end / block)]);
  const image = new ImageData(toKey - k, toQuery - q);
  const [from, into] = [new Uint32Array(map.table.buffer), new Uint32Array(image.data.buffer)];
  for (let query = q; query < toQuery; query++) {
    const row = (query - q) * image.width;
    for (let key = k; key < toKey && key <= query; key++) into[row + key - k] = from[levels[pairIndex(query, key)]];
  }
  const small = document.createElement("canvas");
  [small.width, small.height] = [image.width, image.height];
  small.getContext("2d").putImageData(image, 0, 0);
  const size = cell * block;
  context.imageSmoothingEnabled = false;
  context.drawImage(small, left + k * size, top + q * size, image.width * size, image.height * size);
}

/** Thin gaps between cells that are large enough to stand alone. */
function drawGaps(context, { cell, left, top, seq }, from, to, theme) {
  context.strokeStyle = theme.panel;
  context.lineWidth = 1;
  context.beginPath();
  for (let at = from; at < to; at++) {
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
  context.lineWidth = 1;
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

/** Labels of the seen tokens left of the rows and below the columns, of every …th where the cells are small. */
function drawLabels(context, { cell, left, top, margin, every }, tokens, view, columns, rows, focus, theme) {
  context.font = theme.font.replace("12px", `${every > 1 ? 11 : Math.min(12, cell)}px`);
  context.textBaseline = "middle";
  const [edge, bottom] = [view.x - 5, view.y + view.height + 5];
  const isNamed = (index) => index % every === 0;
  const write = (index, isFocused, x, y) => {
    context.fillStyle = isFocused ? theme.accent : theme.ink;
    context.fillText(shorten(context, tokens[index], margin - 8), x, y);
  };
  context.textAlign = "right";
  for (let index = rows[0]; index < rows[1]; index++) {
    const y = top + (index + 0.5) * cell;
    if (isNamed(index) && y >= view.y && y <= view.y + view.height) write(index, focus?.query === index, edge, y);
  }
  for (let index = columns[0]; index < columns[1]; index++) {
    const x = left + (index + 0.5) * cell;
    if (!isNamed(index) || x < view.x || x > view.x + view.width) continue;
    context.save();
    context.translate(x, bottom);
    context.rotate(-Math.PI / 2);
    write(index, focus?.key === index, 0, 0);
    context.restore();
  }
}

/** The colour scale, in the empty half after the query, where that is seen: [its place, if it is drawn]. */
function drawScale(context, layout, map, view, theme) {
  const height = Math.floor(Math.min(130, view.height * 0.34));
  const [x, y] = [view.x + view.width - SCALE_WIDTH - SCALE_ROOM, view.y + 6];
  const isEmpty = x - layout.left > y + height - layout.top + layout.cell;
  if (height < 40 || !isEmpty) return [];
  context.font = theme.font;
  context.textAlign = "left";
  context.textBaseline = "middle";
  for (let at = 0; at < height; at++) {
    context.fillStyle = tableColour(map.table, Math.round(255 * (1 - at / (height - 1)))).css;
    context.fillRect(x, y + at, SCALE_WIDTH, 1.5);
  }
  context.fillStyle = theme.muted;
  for (const [level, label] of map.legend) context.fillText(label, x + SCALE_WIDTH + 5, y + (1 - level / 255) * (height - 1));
  return [{ x, y, width: SCALE_WIDTH + SCALE_ROOM, height }];
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
