// Names of links beside what they name: where there is room, so that none covers another.

export const LABEL_HEIGHT = 15;
const GAP = 3;

/**
 * The first of `places`, [{x, y, width, height}], that keeps off all in `taken`, which it joins, and if possible off
 * `others`; null where none does.
 */
export function freePlace(places, taken, others = []) {
  const isOff = (place, all) => all.every((other) => !overlap(place, other));
  const free = places.filter((place) => isOff(place, taken));
  const found = free.find((place) => isOff(place, others)) ?? free[0] ?? null;
  if (found) taken.push(found);
  return found;
}

function overlap(a, b) {
  const isApart = (start, size, otherStart, otherSize) => start + size + GAP <= otherStart || otherStart + otherSize + GAP <= start;
  return !isApart(a.x, a.width, b.x, b.width) && !isApart(a.y, a.height, b.y, b.height);
}

/** Write `text` into `place` on a ground of the panel's colour, so that it can be read on anything. */
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

/** The width that `text` takes with a little room on both sides. */
export function labelWidth(context, text, theme) {
  context.font = theme.font;
  return context.measureText(text).width + 6;
}
