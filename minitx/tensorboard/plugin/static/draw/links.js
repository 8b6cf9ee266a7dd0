// The labelled links of a text: thin dashed lines and frames in a colour that no head has, each with its weight.
//
// The drawing functions note in layout.labels where each label lies, [{number, x, y, width, height}], so that it can be
// clicked on.

import { LABEL_HEIGHT, drawLabel, freePlace, labelWidth } from "./labels.js";
import { attentionOf } from "../data/attention.js";

const NAME_AT = [0.5, 0.4, 0.6, 0.3, 0.7, 0.2, 0.8]; // places along a curve where its label may stand
const DASH = [4, 3];
const MIN_FRAME = 5; // pixels

/** Whether the query and the key in focus lie in the spans of a link: [query, key]. */
export function linkEnds(link, { query, key }) {
  const isWithin = (token, [start, end]) => token !== null && token >= start && token < end;
  return [isWithin(query, link.query), isWithin(key, link.key)];
}

/**
 * The links to draw of a text, [{number, query, key, name, label}]: the one that is asked about, else those that touch a
 * word of `focus`, else all. The label is the name with the weight in `packed`, a head's pattern.
 */
export function shownLinks(probe, packed, focus, asked) {
  const touches = (link) => [focus.query, focus.key].some((token) => linkEnds(link, { query: token, key: token }).some(Boolean));
  const numbered = probe.links.map((link, number) => ({ ...link, number }));
  const isSeen = (link) => (asked ?? null) !== null ? link.number === asked : !focus || touches(link);
  return numbered.filter(isSeen).map((link) => ({ ...link, label: packed ? `${link.name} ${attentionOf(packed, link).weight.toFixed(2)}` : link.name }));
}

/** Draw links as dashed curves, [{link, points: start, two control points, end}]. A link carries its label between
 * `least` and `most`, the ends of the visible part, where it finds room. */
export function drawLinkCurves(context, layout, paths, [least, most], theme) {
  context.strokeStyle = theme.mark;
  context.lineWidth = 1.2;
  context.setLineDash(DASH);
  for (const { points: [start, a, b, end] } of paths) {
    context.beginPath();
    context.moveTo(...start);
    context.bezierCurveTo(...a, ...b, ...end);
    context.stroke();
  }
  context.setLineDash([]);
  const taken = [];
  layout.labels = [];
  for (const { link, points } of paths) {
    const width = labelWidth(context, link.label, theme);
    const over = Math.max(0, (width - (most - least)) / 2); // a long label reaches over both columns
    const [start, end] = [least - over, most + over];
    const onCurve = NAME_AT.map((share) => {
      const [x, y] = [0, 1].map((axis) => curveAt(points.map((point) => point[axis]), share));
      return { x: Math.max(start, Math.min(x - width / 2, end - width)), y: y - LABEL_HEIGHT / 2, width, height: LABEL_HEIGHT };
    });
    const beside = [1, -1, 2, -2].map((rows) => ({ ...onCurve[0], y: onCurve[0].y + rows * (LABEL_HEIGHT + 4) }));
    const places = [...onCurve, ...beside];
    const place = start >= 0 ? freePlace(places, taken) : null;
    if (place) label(context, layout, link, place, theme);
  }
}

/** A coordinate of a cubic Bézier curve. */
function curveAt([p0, p1, p2, p3], t) {
  return (1 - t) ** 3 * p0 + 3 * (1 - t) ** 2 * t * p1 + 3 * (1 - t) * t ** 2 * p2 + t ** 3 * p3;
}

/** A frame around each link of a map, with its label if it fits into `view`, {x, y, width, height}, and not on `others`. */
export function drawLinkFrames(context, layout, links, view, theme, others) {
  const { cell, left, top } = layout;
  const frames = links.map((link) => {
    const [[q0, q1], [k0, k1]] = [link.query, link.key];
    const size = (count) => Math.max(MIN_FRAME, count * cell + 2);
    return { link, x: left + k0 * cell - 1, y: top + q0 * cell - 1, width: size(k1 - k0), height: size(q1 - q0) };
  });
  context.strokeStyle = theme.mark;
  context.lineWidth = 1.2;
  context.setLineDash(DASH);
  for (const { x, y, width, height } of frames) context.strokeRect(x, y, width, height);
  context.setLineDash([]);
  const isSeen = ({ x, y }) => x >= view.x - 2 && x < view.x + view.width && y >= view.y - 2 && y < view.y + view.height;
  const seen = frames.filter(isSeen);
  // From right to left: the line from a label down to its frame then passes left of the labels already placed.
  seen.sort((a, b) => b.x - a.x || b.y - a.y);
  const [taken, labels] = [[...others], []];
  for (const frame of seen) {
    const width = labelWidth(context, frame.link.label, theme);
    const x = Math.max(view.x, Math.min(frame.x, view.x + view.width - width));
    const at = (y) => ({ x, y, width, height: LABEL_HEIGHT });
    const upwards = (y) => (y < view.y ? [] : [at(y), ...upwards(y - LABEL_HEIGHT - 3)]);
    // Above the diagonal of the frame's column there are no cells to cover.
    const places = [...upwards(top + frame.link.key[0] * cell - LABEL_HEIGHT - 2), ...upwards(frame.y - LABEL_HEIGHT - 2), at(frame.y + frame.height + 2)];
    const isInside = ({ y }) => y >= view.y && y + LABEL_HEIGHT <= view.y + view.height;
    const place = freePlace(places.filter(isInside), taken, seen.filter((other) => other !== frame));
    if (!place) continue;
    labels.push([frame.link, place]);
    if (place.y + place.height + 4 >= frame.y) continue;
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(frame.x, place.y + place.height);
    context.lineTo(frame.x, frame.y);
    context.stroke();
  }
  layout.labels = [];
  for (const [link, place] of labels) label(context, layout, link, place, theme);
}

function label(context, layout, link, place, theme) {
  drawLabel(context, link.label, place, theme);
  layout.labels.push({ number: link.number, ...place });
}
