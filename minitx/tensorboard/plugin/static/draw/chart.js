// The chart of a score against steps: a line for each head, coloured if the head is shown, and uniform attention.

import { figure } from "../state/scores.js";
import { nearestOf } from "../state/state.js";

/** The layout of the chart's axes in (width, height). */
export function chartLayout(chart, width, height) {
  const all = [...chart.values.flatMap((row) => row ?? []), ...chart.chance].filter((value) => value !== null);
  let [low, high] = all.length ? [Math.min(0, ...extremes(all)), Math.max(...extremes(all))] : [0, 1];
  if (high - low < 1e-6) high = low + 1;
  const [left, right, top, bottom] = [40, 58, 6, height - 16];
  const [first, last] = [chart.steps[0] ?? 0, chart.steps.at(-1) ?? 1];
  return {
    low,
    high,
    left,
    right: width - right,
    top,
    bottom,
    x: (step) => left + ((step - first) / Math.max(1, last - first)) * (width - right - left),
    y: (value) => bottom - ((value - low) / (high - low)) * (bottom - top),
    stepAt: (x) => nearestOf(chart.steps, first + ((x - left) / (width - right - left)) * (last - first)),
  };
}

function extremes(values) {
  let [low, high] = [Infinity, -Infinity];
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return [low, high];
}

/**
 * Draw `chart`: {steps, values: by step the scores of all heads or null, chance, current, other: a step or null,
 * heads: [{head, colour, name}], the chosen one last}.
 */
export function drawChart(context, layout, chart, theme) {
  const { left, right, top, bottom, x, y } = layout;
  context.font = theme.font.replace("12px", "11px");
  context.textBaseline = "middle";
  context.fillStyle = theme.muted;
  context.strokeStyle = theme.line;
  context.lineWidth = 1;
  context.textAlign = "right";
  for (const value of [layout.low, (layout.low + layout.high) / 2, layout.high]) {
    context.fillText(figure(value), left - 6, y(value));
    context.beginPath();
    context.moveTo(left, Math.round(y(value)) + 0.5);
    context.lineTo(right, Math.round(y(value)) + 0.5);
    context.stroke();
  }
  context.textAlign = "left";
  context.textBaseline = "bottom";
  if (chart.steps.length) {
    context.fillText(`step ${chart.steps[0]}`, left, bottom + 15);
    context.textAlign = "right";
    context.fillText(String(chart.steps.at(-1)), right, bottom + 15);
  }
  const count = chart.values.find((row) => row)?.length ?? 0;
  context.strokeStyle = theme.muted;
  context.globalAlpha = count > 40 ? 0.18 : 0.35;
  for (let head = 0; head < count; head++) drawLine(context, layout, chart.steps, (at) => chart.values[at]?.[head]);
  context.globalAlpha = 1;
  context.setLineDash([4, 4]);
  context.strokeStyle = theme.ink;
  drawLine(context, layout, chart.steps, (at) => chart.chance[at]);
  context.setLineDash([]);
  for (const [order, { head, colour }] of chart.heads.entries()) {
    context.strokeStyle = colour;
    context.lineWidth = order === chart.heads.length - 1 ? 3 : 1.8;
    drawLine(context, layout, chart.steps, (at) => chart.values[at]?.[head]);
  }
  drawNames(context, layout, chart, theme);
  for (const [step, dash] of [[chart.other, [2, 3]], [chart.current, []]]) {
    if (step === null) continue;
    context.strokeStyle = theme.accent;
    context.lineWidth = 1.5;
    context.setLineDash(dash);
    context.beginPath();
    context.moveTo(x(step), top - 4);
    context.lineTo(x(step), bottom + 2);
    context.stroke();
    context.setLineDash([]);
  }
}

/** Names at the right ends of the coloured lines and of chance, pushed apart so that no name covers another. */
function drawNames(context, layout, chart, theme) {
  const lastOf = (value) => chart.steps.map((_, at) => value(at)).filter((one) => one !== null && one !== undefined).at(-1);
  const room = Math.floor((layout.bottom + 10 - layout.top) / 11) - 1; // names beside that of uniform attention
  const names = chart.heads.slice(-Math.max(1, Math.min(6, room))).map(({ head, colour, name }) => ({ name, colour, value: lastOf((at) => chart.values[at]?.[head]) }));
  names.push({ name: "uniform", colour: theme.muted, value: lastOf((at) => chart.chance[at]) });
  context.textAlign = "left";
  context.textBaseline = "middle";
  let above = layout.top - 11;
  const rows = names.filter((one) => one.value !== undefined).sort((a, b) => b.value - a.value);
  for (const [order, { name, colour, value }] of rows.entries()) {
    const room = layout.bottom + 8 - 11 * (rows.length - 1 - order); // leaves room for the names below
    const y = Math.max(above + 11, Math.min(layout.y(value), room));
    above = y;
    context.fillStyle = colour;
    context.fillText(name, layout.right + 5, y);
  }
}

function drawLine(context, { x, y }, steps, value) {
  context.lineCap = "round"; // a value between two steps without one is then a dot
  context.beginPath();
  let isDown = false;
  for (const [at, step] of steps.entries()) {
    const height = value(at);
    if (height === null || height === undefined) isDown = false;
    else if (isDown) context.lineTo(x(step), y(height));
    else {
      context.moveTo(x(step), y(height));
      context.lineTo(x(step) + 0.01, y(height));
      isDown = true;
    }
  }
  context.stroke();
}
