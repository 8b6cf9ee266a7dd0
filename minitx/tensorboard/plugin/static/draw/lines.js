// Token views: the text in two columns or in one line. Lines between tokens are as strong as the attention.
//
// In columns, queries are left and keys right; in one line, an arc leads from the query back to the key. With `focus` on
// a token only its lines are drawn, and the tokens at their other ends carry a bar for each head.

import { shorten } from "./heatmap.js";
import { drawLinkCurves } from "./links.js";
import { pairIndex } from "../data/snapshot.js";

const MAX_LINES = 1500;
const MIN_LEVEL = 40; // of 255, a weight of 0.025; weaker lines are drawn only for a focused token
const MIN_FOCUSED = 26; // a weight of 0.01
const [MIN_ROW, MAX_ROW] = [13, 26];
const [BAR, MAX_BARS, BAR_GAP] = [9, 12, 6];

/**
 * The entries to draw of `heads`, [{packed, colour}], weakest first: [{head, query, key, level}].
 * Without focus they are the strongest `MAX_LINES`, with it all that touch its query or its key.
 */
export function chooseLines(heads, seq, focus, withFirst) {
  const entries = [];
  const keep = (head, query, key, least) => {
    const level = heads[head].packed[pairIndex(query, key)];
    if (level >= least && (withFirst || key > 0)) entries.push({ head, query, key, level });
  };
  if (focus) {
    for (let head = 0; head < heads.length; head++) {
      if (focus.query !== null) for (let key = 0; key <= focus.query; key++) keep(head, focus.query, key, MIN_FOCUSED);
      if (focus.key !== null) for (let query = focus.key; query < seq; query++) keep(head, query, focus.key, MIN_FOCUSED);
    }
  } else {
    const least = leastLevel(heads, withFirst);
    for (let head = 0; head < heads.length; head++) {
      for (let query = 0, at = 0; query < seq; query++) {
        for (let key = 0; key <= query; key++, at++) if (heads[head].packed[at] >= least) keep(head, query, key, least);
      }
    }
  }
  return entries.sort((a, b) => a.level - b.level).slice(-2 * MAX_LINES);
}

/** The lowest level that about `MAX_LINES` entries reach. */
function leastLevel(heads, withFirst) {
  const counts = new Uint32Array(256);
  for (const { packed } of heads) for (let at = 0; at < packed.length; at++) counts[packed[at]]++;
  if (!withFirst) {
    for (const { packed } of heads) for (let at = 0, query = 0; at < packed.length; at += ++query) counts[packed[at]]--;
  }
  let [level, sum] = [255, counts[255]];
  while (level > MIN_LEVEL && sum + counts[level - 1] <= MAX_LINES) sum += counts[--level];
  return level;
}

// Two columns

/** The layout of two columns of `tokens`: {row, left, right, width, height}. The height is that of the whole text. */
export function columnsLayout(context, tokens, width, room, heads, font) {
  const row = Math.min(MAX_ROW, Math.max(MIN_ROW, Math.floor((room - 32) / tokens.length)));
  context.font = font;
  const bars = Math.min(heads, MAX_BARS);
  const bar = Math.max(1, Math.min(BAR, Math.floor((width / 6 - BAR_GAP) / bars))); // both sides take a third at most
  const beside = bars * bar + BAR_GAP;
  const least = Math.max(60, width * 0.25);
  let longest = 0;
  for (const token of tokens) longest = Math.max(longest, context.measureText(token).width);
  const widest = Math.max(20, Math.min(150, longest + 8, (width - 16 - least) / 2 - beside));
  const middle = Math.min(360, Math.max(least, width - 2 * (widest + beside) - 16));
  const start = Math.max(4, (width - middle - 2 * (widest + beside)) / 2);
  return {
    seq: tokens.length,
    row,
    top: 24,
    label: widest,
    bar,
    beside,
    left: start + widest + beside,
    right: start + widest + beside + middle,
    width,
    height: 24 + tokens.length * row + 8,
  };
}

/** The token at a point: {query, key: null} in the left column, {query: null, key} in the right one, or null. */
export function columnsHit(layout, x, y) {
  const index = Math.floor((y - layout.top) / layout.row);
  if (index < 0 || index >= layout.seq) return null;
  if (x < layout.left + 8) return { query: index, key: null };
  return x > layout.right - 8 ? { query: null, key: index } : null;
}

/** Draw the part of the columns between `from` and `to` of the layout's height. */
export function drawColumns(context, layout, { tokens, unit, links, heads, lines }, focus, theme, from, to) {
  const { row, top, left, right } = layout;
  const middle = (index) => top + (index + 0.5) * row;
  const isSeen = (a, b) => Math.max(a, b) >= from - row && Math.min(a, b) <= to + row;
  const bend = (right - left) * 0.42;
  context.lineCap = "round";
  for (const { head, query, key, level } of lines) {
    const [start, end] = [middle(query), middle(key)];
    if (!isSeen(start, end)) continue;
    stroke(context, heads[head], level, focus);
    context.beginPath();
    context.moveTo(left, start);
    context.bezierCurveTo(left + bend, start, right - bend, end, right, end);
    context.stroke();
  }
  context.globalAlpha = 1;
  const paths = links.map((link) => {
    const [start, end] = [middle((link.query[0] + link.query[1] - 1) / 2), middle((link.key[0] + link.key[1] - 1) / 2)];
    return { link, points: [[left, start], [left + bend, start], [right - bend, end], [right, end]] };
  });
  drawLinkCurves(context, layout, paths, [left, right], theme);
  context.font = theme.font;
  context.textBaseline = "middle";
  context.fillStyle = theme.muted;
  context.textAlign = "right";
  context.fillText(unit, Math.max(left - 6, context.measureText(unit).width + 2), top - 11);
  context.fillText("attends to", Math.min(right + 6 + context.measureText("attends to").width, layout.width - 2), top - 11);
  const first = Math.max(0, Math.floor((from - top) / row));
  const last = Math.min(layout.seq - 1, Math.ceil((to - top) / row));
  const small = { ...theme, font: theme.font.replace("12px", `${Math.min(12, row - 2)}px`) };
  const ends = endWeights(lines, heads.length, focus);
  for (let index = first; index <= last; index++) {
    const text = shorten(context, tokens[index], layout.label - 8);
    drawToken(context, text, left - 6 - layout.beside, middle(index), "right", focus?.query === index, small);
    drawToken(context, text, right + 6 + layout.beside, middle(index), "left", focus?.key === index, small);
    for (let head = 0; head < Math.min(heads.length, MAX_BARS); head++) {
      drawBar(context, right + 5 + head * layout.bar, middle(index), layout, ends.keys.get(index)?.[head], heads[head]);
      drawBar(context, left - 5 - (head + 1) * layout.bar, middle(index), layout, ends.queries.get(index)?.[head], heads[head]);
    }
  }
  context.globalAlpha = 1;
}

/** How strongly each head reaches each token at the far end of a focused token's lines. */
function endWeights(lines, heads, focus) {
  const [keys, queries] = [new Map(), new Map()];
  const put = (map, token, head, level) => {
    if (!map.has(token)) map.set(token, new Uint8Array(heads));
    map.get(token)[head] = level;
  };
  for (const { head, query, key, level } of focus ? lines : []) {
    if (focus.query === query) put(keys, key, head, level);
    if (focus.key === key) put(queries, query, head, level);
  }
  return { keys, queries };
}

function drawBar(context, x, y, { row, bar }, level, head) {
  if (!level || level < MIN_LEVEL) return;
  const height = Math.max(2, (row - 4) * (level / 255) ** 2);
  context.globalAlpha = 0.25 + 0.75 * (level / 255);
  context.fillStyle = head.colour;
  context.fillRect(x, y + (row - 4) / 2 - height, Math.max(1, bar - (bar > 4 ? 2 : 1)), height);
  context.globalAlpha = 1;
}

function drawToken(context, text, x, y, side, isFocused, theme) {
  context.textAlign = side;
  context.fillStyle = isFocused ? theme.accent : theme.ink;
  context.font = isFocused ? `bold ${theme.font}` : theme.font;
  context.fillText(text, x, y);
}

function stroke(context, head, level, focus) {
  const weight = (level / 255) ** 2;
  context.strokeStyle = head.colour;
  context.globalAlpha = Math.min(1, (focus ? 0.15 : 0.06) + weight * (focus ? 0.85 : 0.8));
  context.lineWidth = 0.7 + weight * 3.3;
}

// One line with arcs

/** The layout of one line of `tokens`: {places: [{x, width}], base, width, height}. The width is that of all tokens. */
export function arcsLayout(context, tokens, room, height, font) {
  context.font = font;
  const widths = tokens.map((token) => Math.min(140, context.measureText(token).width) + 8);
  const spare = (room - 32 - widths.reduce((sum, width) => sum + width, 0)) / tokens.length;
  let x = 16;
  const places = widths.map((least) => {
    const width = least + Math.max(0, Math.min(60, spare));
    const place = { x, width };
    x += width;
    return place;
  });
  return { seq: tokens.length, places, base: height - 46, width: x + 16, height };
}

/** The token at a point, as query and key at once, or null. */
export function arcsHit(layout, x, y) {
  if (y < layout.base - 10) return null;
  const index = layout.places.findIndex((place) => x >= place.x && x < place.x + place.width);
  return index < 0 ? null : { query: index, key: index };
}

/** Draw the part of the line between `from` and `to` of the layout's width. */
export function drawArcs(context, layout, { tokens, links, heads, lines }, focus, theme, from, to) {
  const { places, base } = layout;
  const middle = (index) => places[index].x + places[index].width / 2;
  const spanMiddle = ([start, end]) => (middle(start) + middle(end - 1)) / 2;
  const span = Math.max(1, middle(layout.seq - 1) - middle(0));
  const rise = (a, b) => Math.min(base - 14, 16 + (Math.abs(a - b) / Math.min(span, 900)) * (base - 30));
  const arc = (a, b, height) => {
    context.beginPath();
    context.moveTo(a, base);
    context.bezierCurveTo(a, base - height * 1.33, b, base - height * 1.33, b, base);
  };
  context.lineCap = "round";
  for (const { head, query, key, level } of lines) {
    const [a, b] = [middle(query), middle(key)];
    if (a < from - 20 || b > to + 20) continue; // a is right of b
    stroke(context, heads[head], level, focus);
    if (query === key) {
      context.beginPath();
      context.arc(a, base - 7, 6, 0.6 * Math.PI, 2.4 * Math.PI);
    } else arc(a, b, rise(a, b));
    if (focus && focus.query !== query) context.setLineDash([3, 4]);
    context.stroke();
    context.setLineDash([]);
  }
  context.globalAlpha = 1;
  const paths = links.map((link) => {
    const [b, a] = [spanMiddle(link.query), spanMiddle(link.key)];
    const top = base - rise(a, b) * 1.33;
    return { link, points: [[b, base], [b, top], [a, top], [a, base]] };
  });
  drawLinkCurves(context, layout, paths, [0, layout.width], theme);
  context.font = theme.font;
  context.textBaseline = "middle";
  for (const [index, place] of places.entries()) {
    if (place.x > to || place.x + place.width < from) continue;
    drawToken(context, shorten(context, tokens[index], 140), middle(index), base + 16, "center", focus?.query === index, theme);
  }
}
