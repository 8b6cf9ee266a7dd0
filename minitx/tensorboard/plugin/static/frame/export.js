// The view as one picture: title, text, legend, survey, the view itself, and the chart.

import { shorten } from "../draw/heatmap.js";
import { vector, vectorContext } from "../draw/svg.js";
import { headColour, tableColour } from "../draw/theme.js";
import { questionTitle } from "../state/question.js";
import { headName, scoreTitle } from "../state/scores.js";
import { LEGEND } from "../views/stage.js";
import { viewOf } from "../views/views.js";
import { trace } from "./tracing.js";

const [MARGIN, BETWEEN, ROW] = [20, 24, 18];
const [SCALE_WIDTH, SCALE_HEIGHT] = [190, 10];
const MAX_TEXT = 200;
const MAX_HEIGHT = 1600; // of a view
const MAX_ROLES = 4; // of more heads, the legend names no roles
const MAX_PIXELS = 120e6;

/**
 * {svg, width, height, body}: the picture as a vector drawing and its size in CSS pixels. `body` is the height of survey
 * and view; given one, as for the frames of a film, the picture is as high as with that.
 */
export function drawPicture({ parts, state, data, theme, body = null }) {
  const grid = { width: parts.grid.scrollWidth, height: parts.grid.scrollHeight };
  const whole = heightOf(parts.view);
  const isCut = whole > MAX_HEIGHT; // then what the screen shows of it is enough
  const view = { width: parts.view.clientWidth, height: isCut ? Math.min(parts.view.clientHeight, MAX_HEIGHT) : whole };
  const isNarrow = parts.view.getBoundingClientRect().left < parts.grid.getBoundingClientRect().right;
  const [x, y] = isNarrow ? [0, grid.height + BETWEEN] : [grid.width + BETWEEN, 0];
  const height = body ?? Math.max(grid.height, y + view.height);
  const chart = parts.chartBox.hidden ? null : { width: parts.chartBox.clientWidth, height: parts.chartBox.clientHeight };
  const inner = Math.max(grid.width, x + view.width, chart?.width ?? 0);
  const svg = vector("svg");
  const context = vectorContext(svg);
  const ground = vector("rect", { fill: theme.panel });
  svg.append(ground);
  context.translate(MARGIN, MARGIN);
  let top = MARGIN + drawHead(context, { state, data, theme }, inner);
  trace(parts.grid, place(svg, MARGIN, top, grid.width, height), 0, 0);
  trace(parts.view, place(svg, MARGIN + x, top + y, view.width, height - y), 0, isCut ? -parts.view.scrollTop : 0);
  top += height + BETWEEN / 2;
  if (chart) {
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.font = theme.font;
    writeAt(context, shorten(context, parts.chartTitle.textContent, inner), MARGIN, top + 12, theme.muted, theme.font);
    parts.chart.paint(vectorContext(place(svg, MARGIN, top + ROW, chart.width, chart.height)));
    top += ROW + chart.height;
  }
  const size = { width: Math.ceil(inner + 2 * MARGIN), height: Math.ceil(top + MARGIN) };
  for (const [name, value] of Object.entries({ ...size, viewBox: `0 0 ${size.width} ${size.height}` })) svg.setAttribute(name, value);
  for (const [name, value] of Object.entries(size)) ground.setAttribute(name, value);
  return { svg, ...size, body: height };
}

/** The height of what a view shows, without the empty room below. */
function heightOf(view) {
  const top = view.getBoundingClientRect().top - view.scrollTop;
  const stages = (view.stages ?? []).filter((stage) => !stage.root.hidden);
  const ends = stages.map((stage) => stage.canvas.getBoundingClientRect().top + stage.used);
  if (!stages.length) ends.push(...[...view.children].map((child) => child.getBoundingClientRect().bottom));
  return Math.ceil(Math.max(top, ...ends) - top);
}

/** A drawing within the drawing, which cuts off what is outside of it. */
function place(svg, x, y, width, height) {
  const inner = vector("svg", { x, y, width, height });
  svg.append(inner);
  return inner;
}

/** Title, first line of the text, and legend; returns their height. */
function drawHead(context, { state, data, theme }, width) {
  const { first } = data;
  const about = viewOf(state.view).isOfModel ? [] : [headName(state.head, first.heads)];
  const title = [data.run, `step ${data.firstStep.toLocaleString("en")}`, ...about].join(" · ");
  writeAt(context, title, 0, 14, theme.ink, theme.font.replace("12px", "bold 17px"));
  const text = first.probes[0].text.trim().split("\n")[0].slice(0, MAX_TEXT);
  context.font = theme.font;
  writeAt(context, shorten(context, text, width), 0, 14 + ROW + 2, theme.muted, theme.font);
  return 14 + ROW + drawLegend(context, { state, data, theme }, 14 + ROW + 18, width) + 14;
}

/** The scale of weights and the colours of the shown heads, in as many rows as they need; returns their height. */
function drawLegend(context, { state, data, theme }, top, width) {
  writeAt(context, "attention", 0, top + 9, theme.muted, theme.font);
  const left = context.measureText("attention").width + 10;
  for (let at = 0; at < SCALE_WIDTH; at += 2) {
    context.fillStyle = tableColour(theme.ramp, Math.round((255 * at) / (SCALE_WIDTH - 2))).css;
    context.fillRect(left + at, top, 2.5, SCALE_HEIGHT);
  }
  const small = theme.font.replace("12px", "10px");
  context.textAlign = "center";
  for (const [level, label] of LEGEND) writeAt(context, label, left + (level / 255) * SCALE_WIDTH, top + SCALE_HEIGHT + 10, theme.muted, small);
  context.textAlign = "left";
  let [x, y] = [left + SCALE_WIDTH + BETWEEN, top + 9];
  for (const { name, colour } of legendOf(state, data, theme)) {
    context.font = theme.font;
    const wide = context.measureText(name).width + (colour ? 32 : 18);
    if (x + wide > width && x > 0) [x, y] = [0, y + ROW + (y === top + 9 ? 8 : 0)];
    if (colour) {
      context.fillStyle = colour;
      context.fillRect(x, y - 9, 10, 10);
    }
    writeAt(context, name, x + (colour ? 15 : 0), y, theme.ink, theme.font);
    x += wide;
  }
  return Math.max(y, top + SCALE_HEIGHT + 10) - top + ROW;
}

/** [{name, colour}]: the heads on view, and what the squares' numbers are. */
function legendOf(state, { first, score, question }, theme) {
  const heads = [...new Set([...state.shown, state.head])].sort((a, b) => a - b);
  const role = (head) => (heads.length <= MAX_ROLES && first.roles[head] && first.roles[head] !== "unclassified" ? ` ${first.roles[head]}` : "");
  const named = heads.map((head) => ({ name: headName(head, first.heads, true) + role(head), colour: headColour(theme, head, first.heads) }));
  return score ? [...named, { name: `under each square: ${question ? questionTitle(question) : scoreTitle(score)}`, colour: "" }] : named;
}

function writeAt(context, text, x, y, colour, font) {
  context.font = font;
  context.fillStyle = colour;
  context.fillText(text, x, y);
}

/** A vector drawing as the text of a file. */
export const asText = (svg) => new XMLSerializer().serializeToString(svg);

/** The picture as a canvas with `ratio` pixels for each of its own, or fewer if that were too many. */
export async function asPixels({ svg, width, height }, ratio) {
  const image = new Image();
  const address = URL.createObjectURL(new Blob([asText(svg)], { type: "image/svg+xml" }));
  image.src = address;
  await image.decode().finally(() => URL.revokeObjectURL(address));
  const scale = Math.min(ratio, Math.sqrt(MAX_PIXELS / (width * height)), 32000 / Math.max(width, height));
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
  canvas.getContext("2d", { willReadFrequently: true }).drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas;
}
