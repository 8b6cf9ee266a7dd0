// Names of links, placed beside them so that no name covers another.

export const LABEL_HEIGHT = 15;
const GAP = 3;

/**
 * The first of `places`, [{x, y, width, height}], that overlaps nothing in `taken` and, if possible, none of `others`.
 * It is added to `taken`. Null if every place overlaps.
 */
export function freePlace(places, taken, others = []) {
  const isOff = (place, all) => all.every((other) => !overlap(place, other));
  const free = places.filter((place) => isOff(place, taken));
  const chosen = free.find((place) => isOff(place, others)) ?? free[0] ?? null;
  if (chosen) taken.push(chosen);
  return chosen;
}

function overlap(a, b) {
  const isApart = (start, size, otherStart, otherSize) => start + size + GAP <= otherStart || otherStart + otherSize + GAP <= start;
  return !isApart(a.x, a.width, b.x, b.width) && !isApart(a.y, a.height, b.y, b.height);
}

/** Write `text` into a place, on a background that keeps it readable over anything. */
export function drawLabel(context, text, { x, y, width, height }, theme) {
  context.fillStyle = theme.panel;
  context.globalAlpha = 0.8;
  context.fillRect(x, y, width, height);
  context.globalAlpha = 1;
  context.font = theme.font;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillStyle = theme.mark;
  context.fillText(text, x + width / 2, y + height / 2);
}

/** The width of `text` with a little room on both sides. */
export function labelWidth(context, text, theme) {
  context.font = theme.font;
  return context.measureText(text).width + 6;
}
