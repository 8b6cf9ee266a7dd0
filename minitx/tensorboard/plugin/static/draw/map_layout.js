// Where a map lies: its cells, its labels, and the part of a zoomed one that is seen.
//
// A layout is computed from the tokens, the room and the zoom. Drawing and hit-testing both use it, so the pointer names
// exactly what lies under it. Rows are queries, columns are keys. Labels stay at the edges while the cells scroll.

const MAX_CELL = 44;
const [MIN_LABELLED_CELL, MIN_LABEL_STEP] = [8, 14];
const [MIN_BLOCK_CELL, BLOCK_PIXELS] = [2.5, 3.5]; // smaller cells are drawn as blocks
const MAX_LABEL = 110;
const [EDGE, TOP] = [6, 8];

/**
 * The layout of a map of `tokens` in (width, height), `zoom` times as large as fits:
 * {cell, left, top, side, margin, every: a label stands at every …th token, block: tokens that share a drawn cell,
 * mostZoom, wide, high: size of the whole}.
 */
export function mapLayout(context, tokens, width, height, font, zoom = 1) {
  context.font = font;
  const seq = tokens.length;
  let widest = 0;
  for (const token of tokens) widest = Math.max(widest, context.measureText(token).width);
  const margin = Math.min(MAX_LABEL, Math.max(30, width * 0.25), widest + 10);
  const room = Math.max(40, Math.min(width - margin - EDGE, height - margin - EDGE));
  const fit = Math.min(MAX_CELL, room / seq);
  const scaled = Math.min(MAX_CELL, fit * zoom);
  const cell = scaled >= 4 ? Math.floor(scaled) : scaled;
  const side = cell * seq;
  const left = margin + Math.max(0, (width - margin - side - EDGE) / 2);
  const every = cell >= MIN_LABELLED_CELL ? 1 : Math.ceil(MIN_LABEL_STEP / cell);
  const block = cell >= MIN_BLOCK_CELL ? 1 : Math.ceil(BLOCK_PIXELS / cell);
  const [wide, high] = [left + side + EDGE, TOP + side + margin];
  return { cell, left, top: TOP, side, margin, every, block, width, height, seq, mostZoom: Math.max(1, MAX_CELL / fit), wide, high };
}

/** The seen part of the cells, {x, y, width, height}, after scrolling by (x, y). */
export function mapView({ left, top, side, margin, width, height }, x, y) {
  return { x: x + left, y: y + top, width: Math.min(side, width - left - EDGE), height: Math.min(side, height - top - margin) };
}

/** The tokens that lie between `start` and `end`, pixels from the first: [first, after the last]. */
export function tokensWithin({ cell, seq }, start, end) {
  return [Math.max(0, Math.floor(start / cell)), Math.min(seq, Math.ceil(end / cell))];
}

/** The cell under a point, {query, key}, or null; `scrolled` is [x, y]. */
export function mapHit(layout, x, y, scrolled = [0, 0]) {
  const view = mapView(layout, ...scrolled);
  if (x < view.x || x >= view.x + view.width || y < view.y || y >= view.y + view.height) return null;
  const query = Math.floor((y - layout.top) / layout.cell);
  const key = Math.floor((x - layout.left) / layout.cell);
  return query < layout.seq && key <= query ? { query, key } : null;
}
