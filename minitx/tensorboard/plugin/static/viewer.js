// The viewer: holds the state and its data, and draws both.
//
// Every action calls `change`, which loads the data of the new state from the source (source.js) and draws. While data
// is loading, further changes are only noted, so dragging the slider never queues up requests.

import { describeFocus, fitting, movedFocus, stageContents } from "./contents.js";
import { drawChips, drawControls, drawHeading, drawTimeline } from "./controls.js";
import { download, element } from "./dom.js";
import { READING, gather } from "./gather.js";
import { drawPicture } from "./export.js";
import { buildLayout } from "./layout.js";
import { createStage, drawStage, showFocus } from "./stage.js";
import { START, figure, fromLink, headName, headsWithin, nearestOf, toLink } from "./state.js";
import { describeHead, drawSurvey, neighbour } from "./survey.js";
import { readTheme } from "./theme.js";

const POLL_MILLISECONDS = 3000;

/** Fill `root` with a viewer of `source`. `link` is the view to open; `linkTo(text)` gives the address of a view. */
export function startViewer(root, source, { link = "", linkTo }) {
  let state = { ...START, ...fromLink(link) };
  let data = { runs: [], info: null, first: null, second: null, chart: null, fault: "", note: "" };
  let hover = null;
  let [loading, isStale] = [null, false];
  let trouble = ""; // why an action failed, shown until the next change
  let reading = ""; // the note while loading takes long
  let player = null; // a new object for every playback, null while paused
  const parts = buildLayout(root, {
    select: (name, value) => select(name, value),
    toggle: (name) => toggle(name),
    allHeads: () => overlay("all"),
    oneHead: () => overlay("one"),
    help: () => showHelp(),
    link: () => showLink(),
    picture: () => savePicture(),
    page: () => savePage(),
    play: () => play(),
    slide: (step) => goTo(nearestOf(data.info?.steps ?? [], step)),
    slideKey: (event) => slideKey(event),
    ownText: (text) => look(text.trim()),
  });
  const stages = [0, 1, 2].map(() => createStage({ hover: hoverPattern, press: pin, keys: patternKeys }));
  parts.stages.append(...stages.map((stage) => stage.root));
  parts.own.value = state.text;

  // State

  function change(changes) {
    state = { ...state, ...changes };
    trouble = "";
    return load();
  }

  function select(name, value) {
    if (name === "run") change({ run: value, step: null, token: null });
    else if (name === "probe") change({ probe: Number(value), token: null });
    else if (name === "score" || name === "view") change({ [name]: value });
    else {
      const field = { otherRun: "run", otherStep: "step", otherHead: "head" }[name];
      const chosen = value === "" ? null : field === "run" ? value : Number(value);
      change({ other: { ...state.other, [field]: chosen } });
    }
  }

  /** Run a text through the model at the shown step, so stop playing. */
  function look(text) {
    if (!text) return undefined;
    if (player) play(); // pauses
    return change({ probe: -1, text, token: null });
  }

  function toggle(name) {
    change({ [name]: !state[name] });
  }

  function choose(head, isAdded) {
    if (!isAdded) return change({ head, shown: state.shown.length > 1 ? sameLayerAs(head) : [head] });
    const shown = state.shown.includes(head) ? state.shown.filter((one) => one !== head) : [...state.shown, head];
    return change({ shown: shown.length ? shown : [head], head: shown.includes(head) ? head : (shown.at(-1) ?? head) });
  }

  /** The heads to show after `head` is chosen: in the same layer they stay, to another layer they move along. */
  function sameLayerAs(head) {
    const perLayer = data.first?.heads ?? 1;
    const layer = Math.floor(head / perLayer);
    if (state.shown.some((one) => Math.floor(one / perLayer) !== Math.floor(state.head / perLayer))) return [head];
    return [...new Set([...state.shown.map((one) => layer * perLayer + (one % perLayer)), head])];
  }

  function overlay(which) {
    const perLayer = data.first?.heads ?? 1;
    const start = state.head - (state.head % perLayer);
    change({ shown: which === "one" ? [state.head] : Array.from({ length: perLayer }, (_, head) => start + head) });
  }

  /** Go to a step. At the newest step the viewer follows the run. */
  function goTo(step) {
    return change({ step: step === data.info?.steps.at(-1) ? null : step });
  }

  function move(by) {
    const steps = data.info?.steps ?? [];
    const at = steps.indexOf(currentStep());
    goTo(steps[Math.min(steps.length - 1, Math.max(0, at + by))] ?? null);
  }

  const currentStep = () => nearestOf(data.info?.steps ?? [], state.step);

  // Data

  /** Load the data of the state. Resolves when nothing is loading any more, even if another call began it. */
  function load(isFresh = false) {
    isStale = isStale === "fresh" || isFresh ? "fresh" : true;
    loading ??= loadStale();
    return loading;
  }

  async function loadStale() {
    try {
      while (isStale) {
        const wasFresh = isStale === "fresh";
        isStale = false;
        const loaded = await gather(source, data, state, wasFresh, tellReading);
        reading = "";
        if (!isStale || loaded.first) data = loaded;
        draw();
      }
    } finally {
      loading = null;
    }
  }

  function tellReading(note) {
    reading = note;
    tellNote(note);
  }

  // Drawing

  function draw() {
    const started = performance.now();
    const theme = readTheme(root);
    drawControls({ parts, source, state, data: { ...data, fault: data.fault || trouble }, isPlaying: Boolean(player) });
    const { first } = data;
    root.classList.toggle("empty", !first);
    if (first) {
      state = { ...state, ...headsWithin(state, first.count) };
      drawSurvey(parts.grid, first, { ...state, score: data.score }, theme, { choose, hover: hoverHead, keys: headKeys });
      drawHeading({ parts, state, data }, theme);
      drawChips({ parts, state, data }, theme, (head) => choose(head, true));
      drawStages(theme);
    }
    drawTimeline({ parts, state, data }, theme);
    if (reading) tellNote(reading);
    root.dataset.step = data.step ?? "";
    root.dataset.redraw = (performance.now() - started).toFixed(1);
    root.dataset.drawn = Number(root.dataset.drawn ?? 0) + 1;
  }

  function tellNote(note) {
    parts.note.textContent = note;
    parts.note.hidden = false;
  }

  function drawStages(theme) {
    const { contents, note } = stageContents(state, data, theme);
    if (note) tellNote(note);
    parts.stages.classList.toggle("several", contents.length > 1);
    const focus = hover ?? state.token;
    for (const [index, stage] of stages.entries()) {
      stage.root.hidden = index >= contents.length || !contents[index].heads.length;
    }
    for (const [index, stage] of stages.entries()) {
      if (!stage.root.hidden) drawStage(stage, contents[index], fitting(focus, contents[index]), state, theme);
    }
  }

  // Pointing

  function hoverPattern(focus, event, stage) {
    const isSame = JSON.stringify(focus) === JSON.stringify(hover);
    hover = focus;
    if (!isSame && data.first) drawStages(readTheme(root));
    tell(focus && stage.content ? describeFocus(stage.content, focus) : null, event);
  }

  function hoverHead(head, event) {
    tell(head === null ? null : describeHead(data.first, head), event);
  }

  function pin(focus) {
    const isSame = JSON.stringify(focus) === JSON.stringify(state.token);
    change({ token: isSame ? null : focus });
  }

  function tell(lines, event) {
    parts.tooltip.hidden = !lines;
    if (!lines) return;
    parts.tooltip.replaceChildren(...lines.map((line) => element("div", {}, line)));
    const { offsetWidth, offsetHeight } = parts.tooltip;
    const x = Math.min(event.clientX + 14, window.innerWidth - offsetWidth - 6);
    const y = event.clientY + 18 + offsetHeight > window.innerHeight ? event.clientY - offsetHeight - 10 : event.clientY + 18;
    parts.tooltip.style.transform = `translate(${Math.max(4, x)}px, ${Math.max(4, y)}px)`;
  }

  // Keys

  function headKeys(event) {
    if (!event.key.startsWith("Arrow") || event.shiftKey || !data.first) return;
    event.preventDefault();
    event.stopPropagation();
    const head = neighbour(parts.grid, state.head, event.key);
    choose(head, false);
    parts.grid.cells.get(head).cell.focus();
  }

  function patternKeys(event, stage) {
    if (!stage.content) return;
    const now = hover ?? state.token;
    const arrows = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (event.key === "Enter" && now) return change({ token: now });
    if (event.key === "Escape") {
      hover = null;
      return change({ token: null });
    }
    if (!arrows) return undefined;
    event.preventDefault();
    event.stopPropagation();
    hover = movedFocus(now, arrows, stage.content);
    drawStages(readTheme(root));
    showFocus(stage, hover);
    parts.spoken.textContent = describeFocus(stage.content, hover).join("; ");
    return undefined;
  }

  root.ownerDocument.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest?.("input, select, textarea");
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    const views = { 1: "both", 2: "map", 3: "columns", 4: "arcs" };
    if (event.key === ",") move(-1);
    else if (event.key === ".") move(1);
    else if (event.key === " " && !event.target.closest?.("button")) play();
    else if (event.key === "Escape" && !parts.keys.hidden) showHelp();
    else if (views[event.key]) change({ view: views[event.key] });
    else if (event.key.startsWith("Arrow")) return headKeys(event);
    else return undefined;
    event.preventDefault();
    return undefined;
  });

  /** On the slider an arrow key goes to the next snapshot, however many steps away. */
  function slideKey(event) {
    const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
    if (!by) return;
    event.preventDefault();
    move(by);
  }

  // Time

  function play() {
    const steps = data.info?.steps ?? [];
    if (player) {
      player = null;
      return draw();
    }
    if (steps.length < 2) return undefined;
    const pause = Math.min(500, Math.max(30, 12000 / steps.length));
    const mine = {};
    player = mine;
    const next = async () => {
      if (player !== mine) return undefined; // stopped
      const at = data.info.steps.indexOf(currentStep());
      if (at >= data.info.steps.length - 1) {
        player = null;
        return draw();
      }
      await goTo(data.info.steps[at + 1]);
      setTimeout(next, pause);
      return undefined;
    };
    setTimeout(next, pause);
    return currentStep() === steps.at(-1) ? goTo(steps[0]) : draw();
  }

  async function poll() {
    const isSeen = !document.hidden && window.innerHeight > 0 && root.isConnected;
    if (isSeen && !loading) {
      try {
        const { runs } = await source.runs();
        const info = data.run && runs.includes(data.run) ? await source.run(data.run) : null;
        const mark = (one) => one && [one.steps.length, one.steps.at(-1), one.newest?.written, one.checkpoints.join()].join("|");
        if (runs.join("\n") !== data.runs.join("\n") || mark(info) !== mark(data.info) || (data.fault && !data.isFinal)) {
          if (info && data.info && !data.info.steps.every((step, index) => step === info.steps[index])) source.forget();
          await load(true);
        }
      } catch (error) {
        data = { ...data, fault: error.message };
        draw();
      }
    }
    setTimeout(poll, POLL_MILLISECONDS);
  }

  /** Show or hide the help, which lies over the view. */
  function showHelp() {
    parts.keys.hidden = !parts.keys.hidden;
    parts.help.setAttribute("aria-expanded", String(!parts.keys.hidden));
  }
  root.addEventListener("pointerdown", (event) => {
    if (!parts.keys.hidden && !parts.keys.contains(event.target) && !parts.help.contains(event.target)) showHelp();
  });

  // Saving and sharing

  function showLink() {
    const address = linkTo(toLink({ ...state, run: data.run ?? state.run }));
    parts.linkText.hidden = false;
    parts.linkText.value = address;
    parts.linkText.select();
    // navigator.clipboard is not available in a notebook's frame, nor without TLS on any host but localhost.
    if (root.ownerDocument.execCommand("copy")) parts.spoken.textContent = "Link copied";
  }

  function savePicture() {
    const facts = [data.run, `step ${data.firstStep}`, headName(state.head, data.first.heads)].join(" · ");
    const canvas = drawPicture({ parts, stages, title: facts, text: data.first.probes[0].text, theme: readTheme(root) });
    canvas.toBlob((blob) => download(blob, "attention.png"));
  }

  async function savePage() {
    const link = toLink({ ...state, run: "", probe: 0, text: "", compare: false });
    trouble = "";
    if (data.probe < 0) tellReading(READING);
    try {
      download(await source.page(data.run, data.firstStep, data.probe, link, state.text, tellReading), "attention.html");
    } catch (error) {
      trouble = error.message;
    }
    reading = "";
    draw();
  }

  parts.chart.addEventListener("pointermove", (event) => {
    const step = stepUnder(event);
    const row = data.chart.values[data.chart.steps.indexOf(step)];
    tell([`step ${step}`, `${headName(state.head, data.first.heads)}: ${figure(row?.[state.head])}`], event);
    if (event.buttons === 1) goTo(step);
  });
  parts.chart.addEventListener("pointerleave", () => tell(null));
  parts.chart.addEventListener("pointerdown", (event) => goTo(stepUnder(event)));
  const stepUnder = (event) => parts.chart.layout.stepAt(event.clientX - parts.chart.getBoundingClientRect().left);

  new ResizeObserver(() => data.info && draw()).observe(root);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => data.info && draw());
  load().then(() => {
    for (const stage of stages) if (state.token && !stage.root.hidden) showFocus(stage, state.token);
    if (source.isLive) setTimeout(poll, POLL_MILLISECONDS);
  });
  return { redraw: draw };
}
