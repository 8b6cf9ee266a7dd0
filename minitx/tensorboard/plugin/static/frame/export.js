// Exports the view as one picture.

import { fitCanvas } from "../draw/dom.js";

const MARGIN = 20;

/** A canvas with title, survey, stages side by side, and chart. */
export function drawPicture({ parts, title, text, theme }) {
  const visible = (parts.view.stages ?? []).filter((stage) => !stage.root.hidden);
  const grid = parts.grid.getBoundingClientRect();
  const [gridWidth, gridHeight] = [parts.grid.scrollWidth, parts.grid.scrollHeight];
  const sizes = visible.map((stage) => ({ width: stage.box.clientWidth, height: stage.box.clientHeight + 22 }));
  const body = Math.max(gridHeight, ...sizes.map((size) => size.height));
  const chart = parts.chartBox.hidden ? 0 : parts.chartBox.clientHeight + 34;
  const width = gridWidth + sizes.reduce((sum, size) => sum + size.width + MARGIN, 0) + 2 * MARGIN;
  const canvas = document.createElement("canvas");
  const context = fitCanvas(canvas, width, 64 + body + chart + MARGIN);
  context.fillStyle = theme.panel;
  context.fillRect(0, 0, width, 64 + body + chart + MARGIN);
  context.textBaseline = "alphabetic";
  context.fillStyle = theme.ink;
  context.font = theme.font.replace("12px", "bold 16px");
  context.fillText(title, MARGIN, 28);
  context.fillStyle = theme.muted;
  context.font = theme.font;
  context.fillText(text.replace(/\s+/g, " ").slice(0, 160), MARGIN, 48);
  for (const { cell, canvas: thumbnail, caption } of parts.grid.cells.values()) {
    const place = thumbnail.getBoundingClientRect();
    const [x, y] = [MARGIN + place.left - grid.left, 64 + place.top - grid.top];
    context.imageSmoothingEnabled = false;
    context.drawImage(thumbnail, x, y, place.width, place.height);
    context.strokeStyle = cell.classList.contains("chosen") ? theme.ink : theme.line;
    context.lineWidth = cell.classList.contains("chosen") ? 2 : 1;
    context.strokeRect(x, y, place.width, place.height);
    context.fillStyle = theme.muted;
    context.fillText(caption.textContent, x, y + place.height + 12);
  }
  let x = gridWidth + 2 * MARGIN;
  for (const [index, stage] of visible.entries()) {
    context.fillStyle = theme.ink;
    context.fillText(stage.title.textContent, x, 76);
    context.drawImage(stage.canvas, x, 86, sizes[index].width, sizes[index].height - 22);
    x += sizes[index].width + MARGIN;
  }
  if (chart) {
    context.fillStyle = theme.muted;
    context.fillText(parts.chartTitle.textContent, MARGIN, 64 + body + 22);
    context.drawImage(parts.chart, MARGIN, 64 + body + 28, width - 2 * MARGIN, parts.chartBox.clientHeight);
  }
  return canvas;
}
