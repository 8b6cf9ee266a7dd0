// A layer as blocks: x, the heads in their lanes, their outputs side by side, the output projection, what it adds.

import { cellStrip, longestOf, partBar, reachOf, ribbon, shape, textAt, told, wordLabel } from "./cells.js";
import { drawResidual } from "./blocks_residual.js";
import { shareText } from "./prediction.js";
import { figure } from "../state/scores.js";

/**
 * The drawing as an SVG element.
 *
 * scene: {answer, tokens, open, layout, theme, colours: one for each of answer.heads, fit(text, width), tell(lines, event),
 * chooseHead(place in answer.heads), move(position)}.
 */
export function drawBlocks(scene) {
  const { layout, answer, theme, tell, colours } = scene;
  const about = { colour: theme.ink, reach: reachOf([answer.x]), averaged: answer.averaged.d_model, lines: [`x, ${answer.d_model} numbers`], tell };
  const size = { width: layout.width, height: layout.height, viewBox: `0 0 ${layout.width} ${layout.height}` };
  return shape(
    "svg",
    { class: "flow", ...size, role: "group", "aria-label": spokenBlocks(scene), style: `font-size: ${layout.px(12)}px` },
    ...blockCaptions(scene),
    ...wordNames(scene),
    cellStrip(answer.x, layout.x, about),
    ...layout.lanes.map((lane, at) => arrowInto(lane, layout.fan, colours[at])),
    ...answer.heads.map((_, at) => drawLane(scene, at)),
    ...answer.heads.map((_, at) => drawSlice(scene, at)),
    ...drawResidual(scene),
  );
}

function spokenBlocks({ answer, tokens, open }) {
  const { head, pattern } = answer.heads[open];
  const most = pattern.indexOf(Math.max(...pattern));
  return `Layer ${answer.layer} at ${tokens[answer.position]}: ${headsIn(answer)}. Head ${head} attends most to ${tokens[most]}, ${figure(pattern[most])}.`;
}

const headsIn = ({ heads: { length } }) => (length === 1 ? "1 head" : `${length} heads`);

/** The names of the rows, left of them; pointing at one explains it. */
function blockCaptions({ layout, answer, tokens, tell, fit }) {
  const [heads, word, room] = [answer.heads.length, tokens[answer.position], layout.label - 10];
  const whole = heads * answer.d_head;
  const name = (y, height, texts, lines) => told(textAt(longestOf(texts, room, fit) || fit(texts[0], room), room, y + height / 2, { "text-anchor": "end", class: "name" }), tell, lines);
  const { cell, title, slice } = layout.heights;
  return [
    name(layout.x.y, cell, [`x of ${wordLabel(word)}`], [`x: one vector for ${word}`, "the residual before the heads, scaled to a root mean square of 1 (RMSNorm)"]),
    name(layout.top, title, [`${headsIn(answer)} × ${answer.d_head}`, `${heads} × ${answer.d_head}`], [`${headsIn(answer)}, each in its own subspace of ${answer.d_head} numbers`]),
    name(layout.query, cell, ["query"], [`query of ${word}`, "what it asks for: x times the head's query matrix, as it meets the keys"]),
    name(layout.output, cell, ["output"], ["output of each head", "the values, weighted by the pattern and added up"]),
    name(layout.side, cell, ["side by side"], ["the outputs of all heads, concatenated", `${heads} × ${answer.d_head} = ${whole} numbers`]),
    name(layout.slice, slice, ["output projection", "projection", "W_O"], ["output projection W_O", `one matrix, ${whole} × ${answer.d_model}: each head meets its own rows`]),
  ];
}

/** The words that may be attended to, a row for each; a click moves to one. */
function wordNames({ layout, answer, tokens, tell, fit, move }) {
  return layout.rows.map((key, row) => {
    const y = layout.first + (row + 0.5) * layout.row;
    const room = layout.label - 10;
    if (key === null) return told(textAt("the others", room, y, { "text-anchor": "end", class: "name", "font-style": "italic" }), tell, ["all other positions together"]);
    const isHere = key === answer.position;
    const text = textAt(fit(wordLabel(tokens[key]), room), room, y, { "text-anchor": "end", class: isHere ? "word here" : "word", "data-key": key });
    return told(text, tell, [tokens[key], isHere ? "the chosen position" : "click to move here"], () => move(key));
  });
}

/** Every head reads all of x, through its own matrices. */
function arrowInto(lane, { y, height }, colour) {
  const path = `M${lane.x + lane.width / 2} ${y + 1}v${height - 4}m-4 -4l4 4l4 -4`;
  return shape("path", { d: path, fill: "none", stroke: colour, "stroke-width": 2 });
}

/** A head from its query to its output; the open one with keys, scores, numbers and values. */
function drawLane(scene, at) {
  const { answer, layout, open, colours, tell, tokens } = scene;
  const [lane, head, colour, isOpen] = [layout.lanes[at], answer.heads[at], colours[at], at === open];
  const inset = layout.isNarrow && !isOpen ? 2 : layout.px(5);
  const [left, width] = [lane.x + inset, lane.width - 2 * inset];
  const name = `head ${head.head}`;
  const choose = () => scene.chooseHead(at);
  const look = { rx: 6, fill: colour, "fill-opacity": isOpen ? 0.07 : 0.02, stroke: colour, "stroke-width": isOpen ? 2 : 1 };
  const button = { class: "lane", tabindex: 0, role: "button", "aria-label": name, "aria-pressed": isOpen };
  const frame = told(shape("rect", { ...lane, ...look, ...button }), tell, [name, isOpen ? "the open head" : "click to open it"], choose);
  frame.addEventListener("keydown", (event) => event.key === "Enter" && choose());

  const titleAt = lane.y + layout.heights.title / 2;
  const title = { fill: colour, "font-weight": 600, "pointer-events": "none", "text-anchor": isOpen ? "start" : "middle" };
  const heading = textAt(width > layout.px(44) ? name : String(head.head), isOpen ? left : lane.x + lane.width / 2, titleAt, title);
  const columns = isOpen ? openColumns(layout, left, width) : { bar: { x: left, width } };
  const names = Object.entries(columns.names ?? {}).map(([text, x]) => textAt(text, x, titleAt, { "text-anchor": "end", class: "name", "pointer-events": "none" }));

  const vector = (kind, y, lines) => {
    const about = { colour, reach: reachOf(answer.heads.map((one) => one[kind])), averaged: answer.averaged.d_head, lines, tell };
    return cellStrip(head[kind], { x: left, y, width, height: layout.heights.cell }, about);
  };
  const word = tokens[answer.position];
  return shape(
    "g",
    { "data-head": head.head, class: isOpen ? "open" : "closed" },
    frame,
    heading,
    ...names,
    vector("query", layout.query, [`${name}: query of ${word}`]),
    ...layout.rows.map((key, row) => drawWeight(scene, at, key, layout.first + row * layout.row, columns)),
    vector("output", layout.output, [`${name}: output for ${word}`]),
  );
}

/** In the open lane, from left to right: key, score, weight as a bar and as a number, value. Without room, the weight. */
function openColumns({ px }, left, width) {
  const [number, right] = [px(38), left + width];
  if (width < px(290)) return { bar: { x: left, width: width - number }, number: right - number + 4 };
  const vector = (width - 2 * number - px(30)) * 0.32;
  const score = left + vector + number;
  const bar = { x: score + px(8), width: width - 2 * vector - 2 * number - px(24) };
  const text = bar.x + bar.width + 4;
  const names = { keys: left + vector, score, weight: text + px(33), values: right };
  return { key: { x: left, width: vector }, score, bar, number: text, value: { x: right - vector, width: vector }, names };
}

/** The weight of one word, or of the others together, and in the open lane what it comes from. */
function drawWeight({ answer, layout, colours, tell, tokens, theme, chooseHead }, at, key, y, columns) {
  const [head, colour, middle] = [answer.heads[at], colours[at], y + layout.row / 2];
  const isOther = (one) => !layout.rows.includes(one);
  const weight = key === null ? head.pattern.filter((_, one) => isOther(one)).reduce((sum, one) => sum + one, 0) : head.pattern[key];
  const inner = { y: y + 2, height: layout.row - 4 };
  const lines = [`head ${head.head}: ${tokens[answer.position]} → ${key === null ? "the others" : tokens[key]}`, `weight ${figure(weight)}`];
  if (key !== null) lines.push(`score ${head.scores[key].toFixed(2)}`);
  const over = shape("rect", { ...columns.bar, y, height: layout.row, fill: "transparent" });
  const group = shape("g", { class: "weight" }, partBar(weight, { ...columns.bar, ...inner }, colour), told(over, tell, lines, () => chooseHead(at)));
  if (columns.number) group.append(textAt(shareText(weight), columns.number, middle, { fill: theme.ink, class: "number", opacity: weight < 0.01 ? 0.5 : 1 }));
  const read = head.read.indexOf(key);
  if (columns.key && read >= 0) {
    const about = (kind) => ({ colour, reach: reachOf(head[kind]), averaged: answer.averaged.d_head, lines: [`head ${head.head}: ${kind.slice(0, -1)} of ${tokens[key]}`], tell });
    group.append(
      cellStrip(head.keys[read], { ...columns.key, ...inner }, about("keys")),
      textAt(head.scores[key].toFixed(2), columns.score, middle, { "text-anchor": "end", fill: theme.muted, class: "number" }),
      shape("g", { opacity: 0.25 + 0.75 * Math.min(1, weight * 2) }, cellStrip(head.values[read], { ...columns.value, ...inner }, about("values"))),
    );
  }
  return group;
}

/** A head's output among the others side by side, and below it the rows of the output projection that it meets. */
function drawSlice({ answer, layout, colours, open, tell, fit, chooseHead }, at) {
  const [head, block, colour] = [answer.heads[at], layout.blocks[at], colours[at]];
  const [name, first, last] = [`head ${head.head}`, at * answer.d_head, (at + 1) * answer.d_head - 1];
  const place = { ...block, y: layout.side, height: layout.heights.cell };
  const reach = reachOf(answer.heads.map((one) => one.output));
  const lines = [`${name}, side by side with the others`, `columns ${first} to ${last} of ${answer.heads.length * answer.d_head}`];
  const rows = `rows ${first} to ${last}`;
  const slice = shape("rect", { ...block, y: layout.slice, height: layout.heights.slice, fill: colour, "fill-opacity": at === open ? 0.75 : 0.45, class: "slice" });
  const text = longestOf([`${rows} × ${answer.d_model}`, rows, `${first}–${last}`], block.width - 6, fit);
  return shape(
    "g",
    {},
    ribbon({ ...layout.lanes[at], y: layout.laneEnd }, { ...block, y: layout.side }, colour),
    cellStrip(head.output, place, { colour, reach, averaged: answer.averaged.d_head, lines, tell }),
    shape("rect", { ...place, fill: "none", stroke: colour, "stroke-width": 2, "pointer-events": "none" }),
    told(slice, tell, [`${rows} of the output projection`, `${answer.d_head} × ${answer.d_model} numbers, which only ${name} meets`], () => chooseHead(at)),
    textAt(text, block.x + block.width / 2, layout.slice + layout.heights.slice / 2, { "text-anchor": "middle", "pointer-events": "none", class: "number" }),
  );
}
