// Where the blocks of a layer stand: lanes for the heads, one of them open, and below them what the heads add together.

const [ROWS_AT_LEAST, ROWS_AT_MOST] = [5, 24];

/**
 * The places of everything, in pixels. `answer` is that of the question "blocks"; `open` is the place of the open head
 * in answer.heads; `size` is the room, {width, height}. The drawing may be larger: then its box scrolls.
 */
export function blocksLayout(answer, open, size) {
  const count = answer.heads.length;
  const isNarrow = size.width < 560;
  const unit = isNarrow ? 1 : Math.min(1.9, Math.max(0.9, Math.min(size.width / 960, size.height / 540)));
  const px = (value) => Math.round(value * unit);
  const [label, gap] = isNarrow ? [82, 3] : [px(120), px(6)];
  const [closedLeast, openLeast] = isNarrow ? [22, 150] : [px(30), px(330)];
  const width = Math.max(size.width, label + openLeast + (count - 1) * (closedLeast + gap) + gap);
  const inner = width - label - gap;
  const share = px(count > 6 ? 12 : 15);
  const base = { width, label, gap, unit, px, isNarrow, inner, heights: { cell: px(15), share, title: px(18), slice: px(20) } };

  const room = size.height - stackRows(base, count, 0).height;
  const least = isNarrow ? 12 : ROWS_AT_LEAST;
  const rows = laneRows(answer, open, Math.min(ROWS_AT_MOST, Math.max(least, Math.floor(room / px(14)))));
  const row = Math.max(px(14), Math.min(px(28), room / rows.length));
  const places = stackRows(base, count, rows.length * row);

  const openWidth = count === 1 ? inner : Math.max(openLeast, Math.min(inner * 0.46, inner - (count - 1) * (closedLeast + gap)));
  const closed = count === 1 ? 0 : (inner - openWidth) / (count - 1) - gap;
  const lanes = answer.heads.map((_, at) => {
    const x = label + at * (closed + gap) + (at > open ? openWidth - closed : 0);
    return { x, width: at === open ? openWidth : closed, y: places.top, height: places.laneEnd - places.top };
  });
  const blocks = answer.heads.map((_, at) => ({ x: label + (at * inner) / count, width: inner / count - 1 }));

  const below = Math.min(inner, size.width - label - gap); // what is below the lanes fits even where they do not
  const strip = below * (isNarrow ? 0.58 : 0.4);
  const bar = { x: label + strip + px(8), width: isNarrow ? below * 0.42 - 46 : below * 0.14 };
  const right = bar.x + bar.width + px(58);
  const guesses = isNarrow
    ? { x: 0, y: places.height + 12, width: size.width, height: px(18) * 7 }
    : { x: right, y: places.spread, width: label + below - right, height: places.height - places.spread };
  const height = isNarrow ? guesses.y + guesses.height : places.height;
  return { ...base, ...places, height, rows, row, lanes, blocks, strip, bar, guesses };
}

/** The heights of all rows from top to bottom, where the words take `words` pixels. */
function stackRows({ px, heights, label, inner, isNarrow }, count, words) {
  const { cell, share, title, slice } = heights;
  let y = 0;
  const take = (size, after = 0) => {
    y += size + after;
    return y - size - after;
  };
  const x = { x: label, y: take(cell), width: inner, height: cell };
  const fan = { y: take(px(13)), height: px(13) };
  const top = take(title);
  const query = take(cell, px(7));
  const first = take(words, px(4));
  const output = take(cell, px(4));
  const laneEnd = y;
  take(px(18));
  const side = take(cell, px(6));
  const sliceTop = take(slice, px(4));
  const spread = take(title);
  const shares = Array.from({ length: count }, () => take(share, 2));
  const sum = take(px(4)) && take(share, px(4));
  const before = take(share, 2);
  const after = take(share, 2);
  return { x, fan, top, query, first, output, laneEnd, side, slice: sliceTop, spread, shares, sum, before, after, height: isNarrow ? y : Math.max(y, spread + 7 * px(17)) };
}

/**
 * The positions that get a row, in order: all up to this one, or this one and those with the greatest weights, of which
 * the open head's count twice. A last row, null, stands for the others.
 */
function laneRows(answer, open, most) {
  const all = answer.heads[0].pattern.map((_, key) => key);
  if (all.length <= most) return all;
  const weights = answer.heads.map((head, at) => head.pattern.map((weight) => (at === open ? 2 * weight : weight)));
  const greatest = (key) => (key === answer.position ? 3 : Math.max(...weights.map((row) => row[key])));
  const kept = all.sort((a, b) => greatest(b) - greatest(a)).slice(0, most - 1).sort((a, b) => a - b);
  return [...kept, null];
}
