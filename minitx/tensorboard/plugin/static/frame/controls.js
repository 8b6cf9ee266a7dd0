// Fills everything around the patterns from state and data: controls, the chosen head's name and chips, the chart.
// Every function here may be called again and again.

import { chartLayout, drawChart } from "../draw/chart.js";
import { element, fillSelect, paintCanvas } from "../draw/dom.js";
import { otherHead } from "../data/gather.js";
import { scoredOn } from "../data/prepare.js";
import { splitsWords } from "../data/words.js";
import { GLOSSARY, roleMeaning } from "../state/glossary.js";
import { questionTitle } from "../state/question.js";
import { figure, headName, isOfTales, meaning, scoreTitle } from "../state/scores.js";
import { nearestOf } from "../state/state.js";
import { strengthOf, tellingScores } from "../state/telling.js";
import { bestHeads, questionOptions } from "./asking.js";
import { describeHead } from "./survey.js";
import { headColour } from "../draw/theme.js";

const plainOption = (value) => ({ value, label: value });

const TELLING = 3; // scores of the chosen head that are shown
const SERVED = 0.5; // of a score above uniform attention, as a role needs

/** Fill, press, disable and hide the controls. */
export function drawControls({ parts, source, state, data, view, isPlaying }) {
  const { info, runs, first } = data;
  fillSelect(parts.run, runs.map(plainOption), data.run ?? "");
  const texts = (info?.newest?.probes ?? []).map(({ text }) => text.replace(/\s+/g, " ").trim());
  const probes = texts.map((text, index) => ({ value: index, label: shortText(text.slice(sharedStart(text, texts))) }));
  if (data.probe === -1) probes.push({ value: -1, label: `Your text: ${shortText(state.text.replace(/\s+/g, " ").trim())}` });
  fillSelect(parts.probe, probes, data.probe ?? 0);
  const names = Object.keys((data.isOfText ? first : info?.newest)?.scores ?? {});
  const scores = names.map((name) => ({ value: name, label: scoreTitle(name), title: meaning(name) }));
  const questions = questionOptions(state, data);
  const isOffered = names.includes(data.score) || data.question;
  fillSelect(parts.score, [{ value: "", label: "none" }, ...scores, ...questions], isOffered ? data.score : "");
  parts.score.title = data.question ? questionTitle(data.question) : meaning(data.score ?? "") || "Score of heads";
  drawUnitsAndText(parts, state, view, data);
  parts.scoreField.hidden = parts.sort.hidden = !(names.length || questions.length);
  for (const name of ["sort", "compare", "first", "links"]) parts[name].setAttribute("aria-pressed", String(state[name]));
  for (const [name, button] of Object.entries(parts.views)) button.setAttribute("aria-pressed", String(view.name === name));
  parts.sort.disabled = !data.score;
  parts.first.hidden = !view.compares || view.name === "map";
  parts.links.hidden = !(view.compares || view.showsLinks) || !first?.probes[0].links.length;
  const isCompared = state.compare && view.compares;
  parts.compare.hidden = !view.compares;
  parts.others.hidden = !isCompared;
  if (isCompared && first) drawOthers(parts, state, data);
  const steps = info?.steps ?? [];
  const step = nearestOf(steps, state.step);
  parts.slider.min = steps[0] ?? 0;
  parts.slider.max = steps.at(-1) ?? 0;
  parts.slider.value = step ?? 0;
  parts.slider.setAttribute("aria-valuetext", `step ${step ?? ""}`);
  const shownStep = data.firstStep ?? step; // the step of the pattern, which may lag behind the slider
  parts.step.textContent = steps.length ? `step ${shownStep.toLocaleString("en")}` : "";
  parts.live.textContent = source.isLive && state.step === null && steps.length && shownStep === steps.at(-1) ? "● newest" : "";
  if (!source.isLive && info?.steps_of > steps.length) parts.live.textContent = `this file holds ${steps.length} of ${info.steps_of} steps`;
  parts.play.textContent = isPlaying ? "❚❚" : "▶";
  parts.play.setAttribute("aria-label", isPlaying ? "Pause" : "Play");
  parts.ownForm.hidden = !source.ownText;
  parts.own.disabled = parts.look.disabled = Boolean(data.refusal);
  parts.own.title = data.refusal ?? "";
  parts.page.hidden = !source.page;
  parts.fault.textContent = data.fault;
  parts.fault.hidden = !data.fault;
  parts.note.textContent = data.note;
  parts.note.hidden = !data.note;
}

/** The switch from words to tokens, and the choice of the text that heads are scored on; hidden where there is none. */
function drawUnitsAndText(parts, state, view, data) {
  const { first, info } = data;
  parts.units.hidden = !first || view.showsTokens || !splitsWords(first.probes[0]);
  for (const name of ["words", "tokens"]) parts[name].setAttribute("aria-pressed", String((state.units === "tokens") === (name === "tokens")));
  parts.measured.hidden = !first?.hasBoth;
  fillSelect(parts.measured, [{ value: "validation", label: scoredOn({ info: info ?? {} }).replace("validation text", "validation") }, { value: "text", label: "this text" }], state.measured === "text" ? "text" : "validation");
  parts.measured.title = `Heads are scored on ${scoredOn({ ...data, info: info ?? {} })}`;
}

/** The choice of what to compare with. */
function drawOthers(parts, state, data) {
  fillSelect(parts.otherRun, data.runs.map(plainOption), data.otherRun ?? data.run);
  const steps = data.otherInfo?.steps ?? [];
  fillSelect(parts.otherStep, [{ value: "", label: "same step" }, ...steps.map((step) => ({ value: step, label: `step ${step}` }))], state.other.step === null ? "" : nearestOf(steps, state.other.step));
  const other = data.second ?? data.first;
  const heads = Array.from({ length: other.count }, (_, head) => {
    const isKept = other.probes[0].has(head);
    return { value: head, label: headName(head, other.heads) + (isKept ? "" : " (removed)"), disabled: !isKept };
  });
  fillSelect(parts.otherHead, [{ value: "", label: "same head" }, ...heads], state.other.head === null ? "" : otherHead(data.first, other, state));
  parts.otherRun.hidden = data.runs.length < 2;
}

const shortText = (text) => (text.length > 60 ? `${text.slice(0, 59)}…` : text);

/** Where a text's first sentence begins that another of `texts` does not have as well. */
function sharedStart(text, texts) {
  const sentences = [...text.matchAll(/[.!?] /g)].map(({ index }) => index + 2);
  return sentences.findLast((start) => texts.some((other) => other !== text && other.startsWith(text.slice(0, start)))) ?? 0;
}

/** The chosen head's name, its role and its most telling scores; all of them on hover. */
export function drawHeading({ parts, state, data, view }, theme) {
  const { first } = data;
  const [name, ...all] = describeHead(first, state.head);
  const facts = first.probes[0].has(state.head) ? factsOf(first, state.head, all) : [element("span", {}, ...all)];
  parts.heading.textContent = name[0].toUpperCase() + name.slice(1);
  parts.heading.style.setProperty("--head", headColour(theme, state.head, first.heads));
  parts.facts.replaceChildren(...facts);
  parts.heading.hidden = Boolean(view.isOfModel);
  parts.facts.hidden = !facts.length || Boolean(view.isOfModel);
}

function factsOf(first, head, all) {
  const role = first.roles[head];
  const fact = (title, text, kind = "fact") => element("span", { class: kind, title }, text);
  const telling = tellingScores(first, head, TELLING);
  const facts = telling.map((score) => fact(meaning(score), `${scoreTitle(score)} ${figure(first.scores[score][head])}`));
  const served = telling.filter((score) => isOfTales(score) && strengthOf(first, score, head) >= SERVED);
  if (served.length) facts.unshift(fact(GLOSSARY["in tales"], `in tales: ${served.map((score) => scoreTitle(score).slice("tales ".length)).join(", ")}`, "fact role"));
  if (role && !(role === "unclassified" && served.length)) facts.unshift(fact(roleMeaning(role), `role: ${scoreTitle(role)}`, "fact role"));
  if (all.length) facts.push(fact(all.join("\n"), first.scored_on ? `all scores on ${first.scored_on}` : "all scores", "fact more"));
  return facts;
}

/** A button for each head of the layer and for other shown heads; a click calls `toggle(head)`. */
export function drawChips({ parts, state, data, view }, theme, toggle) {
  const { first } = data;
  const layer = Math.floor(state.head / first.heads);
  const ofLayer = Array.from({ length: first.heads }, (_, head) => layer * first.heads + head);
  const chips = [...new Set([...ofLayer, ...state.shown])];
  parts.chips.replaceChildren(
    ...chips.map((head) =>
      element(
        "button",
        {
          type: "button",
          class: "chip",
          style: `--head: ${headColour(theme, head, first.heads)}`,
          "aria-pressed": String(state.shown.includes(head)),
          disabled: !first.probes[0].has(head) && !state.shown.includes(head),
          title: first.probes[0].has(head) ? `Toggle ${headName(head, first.heads)}` : `${headName(head, first.heads)} was removed by pruning`,
          onclick: () => toggle(head),
        },
        headName(head, first.heads, true),
      ),
    ),
  );
  const isSingle = view.name === "map" || view.showsOne || (view.name === "both" && Boolean(data.second));
  parts.chips.hidden = parts.oneHead.parentElement.hidden = isSingle;
}

/** The score of every head against steps. */
export function drawTimeline({ parts, state, data }, theme) {
  const { chart, first, info } = data;
  const isShown = Boolean(chart && first && info.steps.length > 1);
  parts.chartBox.hidden = parts.chartTitle.hidden = !isShown;
  parts.slider.parentElement.hidden = !(info?.steps.length > 1);
  if (!isShown) return;
  const dashed = chart.chance.some((value) => value !== null) ? "; dashed: uniform attention" : "";
  const asked = data.question ? questionTitle(data.question) : "";
  const steps = asked && data.probe < 0 ? "at this step alone" : "against steps";
  const on = asked ? "" : `, on ${scoredOn(data)}`;
  parts.chartTitle.textContent = `${asked || scoreTitle(data.score)} of every head ${steps}${on}${dashed}`;
  const explained = asked || `${scoreTitle(data.score)}: ${meaning(data.score)}`;
  parts.chartTitle.title = `${explained}. Uniform attention: ${GLOSSARY["uniform attention"]}.`;
  parts.chart.setAttribute("aria-label", `${parts.chartTitle.textContent}; the slider below moves through the steps`);
  const [width, height] = [parts.chartBox.clientWidth, parts.chartBox.clientHeight];
  const order = [...new Set([state.head, ...bestHeads(data), ...state.shown])].reverse();
  const shown = {
    ...chart,
    current: data.firstStep,
    other: state.compare && data.otherRun === data.run ? data.secondStep : null,
    heads: order.map((head) => ({ head, colour: headColour(theme, head, first.heads), name: headName(head, first.heads, true) })),
  };
  parts.chart.layout = chartLayout(shown, width, height);
  paintCanvas(parts.chart, width, height, (context) => drawChart(context, parts.chart.layout, shown, theme));
}
