// The viewer: holds the state and its data, and draws both.
//
// Every action calls `change`, which loads the data of the new state from the source (source.js) and draws. While data
// is loading, further changes are only noted, so dragging the slider never queues up requests.

import { withQuestion } from "../data/attention.js";
import { firstOther } from "../data/comparing.js";
import { gather } from "../data/gather.js";
import { splitsWords } from "../data/words.js";
import { element } from "../draw/dom.js";
import { readTheme } from "../draw/theme.js";
import { fromLink } from "../state/link.js";
import { isQuestion } from "../state/question.js";
import { START, layerOf, nearestOf, shownAfter } from "../state/state.js";
import { placeIn, unitsIn } from "../state/units.js";
import { fitting } from "../views/stage.js";
import { viewOf } from "../views/views.js";
import { createAsking, describeAnswer, drawQuestion, surveyScores } from "./asking.js";
import { listenToChart } from "./chart_pointer.js";
import { drawChips, drawControls, drawHeading, drawTimeline } from "./controls.js";
import { listenToKeys, slideKeys } from "./keys.js";
import { createGuideMenu } from "./guide_menu.js";
import { buildLayout } from "./layout.js";
import { createPlayer } from "./player.js";
import { poll } from "./poll.js";
import { createSaving, linkOf, showLink } from "./sharing.js";
import { describeHead, drawSurvey, neighbour } from "./survey.js";
import { showTooltip } from "./tooltip.js";
import { isFirstVisit, startTour } from "./tour.js";

/**
 * Fill `root` with a viewer of `source`. `link` is the view to open; `linkTo(text)` gives the address of a view, and
 * `follow(text)` puts it into the address bar. `hasTour`: a first visit without a link begins with the tour.
 */
export function startViewer(root, source, { link = "", linkTo, follow, hasTour = false }) {
  let state = { ...START, ...fromLink(link) };
  let data = { runs: [], info: null, first: null, second: null, chart: null, score: "", fault: "", note: "" };
  let hover = null;
  let [loading, isStale] = [null, false];
  let shownFor = state; // the state that the data was loaded for
  let trouble = ""; // why an action failed, shown until the next change
  let reading = ""; // the note while loading takes long
  const currentStep = () => nearestOf(data.info?.steps ?? [], state.step);
  const player = createPlayer({ steps: () => data.info?.steps ?? [], currentStep, goTo, draw });
  const asking = createAsking(() => ({ state, probe: data.first?.probes[0], opened: data.opened }), change);
  const act = { change, pin: asking.pin, unpin: () => hoverAt(null) ?? asking.end(), ask: asking.ask, hover: hoverAt, tell, note: tellNote, speak, chooseHead: choose, goTo };
  const parts = buildLayout(root, {
    select,
    toggle: (name) => (name === "compare" ? compare() : change({ [name]: !state[name] })),
    overlay,
    showHelp,
    guides: () => guides.toggle(),
    tour: () => startTour(root, parts),
    link: () => showLink(parts, linkTo(linkOf(state, data, isBehind()))),
    toggleSave: () => saving.toggle(),
    save,
    play: player.toggle,
    slide: (step) => goTo(nearestOf(data.info?.steps ?? [], step)),
    slideKey: slideKeys(move),
    ownText: (text) => runText(text.trim()),
    askTo: asking.askTo,
    endQuestion: asking.end,
  });
  const saving = createSaving(parts, source, { now: () => ({ state, data, theme: readTheme(root) }), change, tell: tellReading, done });
  parts.own.value = state.text;
  const guides = createGuideMenu(root, parts, { source, data: () => data, change });

  // State

  function change(changes) {
    state = { ...state, ...changes };
    trouble = "";
    const loaded = load();
    markBusy();
    return loaded;
  }

  function select(name, value) {
    if (name === "run") change({ ...asking.anew(), run: value, step: null, token: null });
    else if (name === "probe") change({ ...asking.anew(), probe: Number(value), token: null });
    else if (name === "units") change({ units: value, token: tokenIn(value) });
    else if (name === "measured") change({ measured: value });
    else if (name === "score" && isQuestion(value)) asking.ask(value);
    else if (name === "score") change({ ...asking.rest(), score: value });
    else if (name === "view") change({ view: value, token: tokenIn(unitsIn(state, viewOf(value))), compare: state.compare && Boolean(viewOf(value).compares) });
    else {
      const field = { otherRun: "run", otherStep: "step", otherHead: "head" }[name];
      const chosen = value === "" ? null : field === "run" ? value : Number(value);
      change({ other: { ...state.other, [field]: chosen } });
    }
  }

  const tokenIn = (units) => (state.token && data.first && splitsWords(data.first.probes[0]) ? placeIn(units, data.first.probes[0], state.token) : state.token);

  /** Run a text through the model at the shown step, so stop playing. */
  function runText(text) {
    player.stop();
    if (!text) return done("The text is empty: type a sentence.");
    return change({ ...asking.rest(), probe: -1, text, token: null });
  }

  async function compare() {
    if (state.compare) return change({ compare: false });
    const other = await firstOther(source, data);
    return change({ compare: true, other, view: viewOf(state.view).compares ? state.view : "map" });
  }

  function choose(head, isAdded) {
    if (!isAdded) return change({ head, shown: shownAfter(head, state, data.first?.heads ?? 1) });
    const shown = state.shown.includes(head) ? state.shown.filter((one) => one !== head) : [...state.shown, head];
    return change({ shown: shown.length ? shown : [head], head: shown.includes(head) ? head : (shown.at(-1) ?? head) });
  }

  function overlay(which) {
    change({ shown: which === "one" ? [state.head] : layerOf(state.head, data.first?.heads ?? 1) });
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
        const wanted = state;
        const loaded = await gather(source, data, wanted, viewOf(wanted.view), wasFresh, (note) => trouble || tellReading(note));
        reading = "";
        if (!isStale || loaded.first) [data, shownFor] = [loaded, wanted];
        if (data.first && state.head === wanted.head) state = { ...state, head: data.head, shown: data.shown, score: state.score ?? data.score };
        draw();
        while (!isStale && data.question && !data.chart.isAll) {
          data = await withQuestion(source, data);
          draw();
        }
      }
    } finally {
      loading = null;
      markBusy();
    }
  }

  /** Whether the data is of another run or text than the state names. */
  function isBehind() {
    return ["run", "probe", "text"].some((name) => state[name] !== shownFor[name]);
  }

  /** While another run or text is loading, the old picture is dimmed: it is not what the lists name. */
  function markBusy() {
    root.classList.toggle("busy", Boolean(loading && data.first) && isBehind());
  }

  function tellReading(note) {
    reading = note;
    tellNote(note);
  }

  // Drawing

  function draw() {
    const started = performance.now();
    const theme = readTheme(root);
    const shown = { ...data, fault: data.fault || trouble || (data.extra ? data.extraFault : ""), note: trouble ? "" : data.note };
    drawControls({ parts, source, state, data: shown, view: viewOf(state.view), isPlaying: player.isPlaying() });
    const { first } = data;
    drawTimeline({ parts, state, data }, theme); // before the view, which takes the room that is left
    root.classList.toggle("empty", !first);
    if (first) {
      const options = { ...state, score: data.score, values: surveyScores(data), chart: data.chart, keepsOrder: player.isPlaying() };
      drawQuestion({ parts, state, data });
      drawSurvey(parts.grid, first, options, theme, { choose, hover: hoverHead, keys: headKeys });
      drawHeading({ parts, state, data, view: viewOf(state.view) }, theme);
      guides.draw(state, data);
      drawChips({ parts, state, data, view: viewOf(state.view) }, theme, (head) => choose(head, true));
      drawView(theme);
      follow?.(linkOf(state, data));
    }
    if (reading) tellNote(reading);
    root.dataset.step = data.step ?? "";
    root.dataset.redraw = (performance.now() - started).toFixed(1);
    root.dataset.drawn = Number(root.dataset.drawn ?? 0) + 1;
  }

  /** Draw the view; its root is emptied when another family of views takes its place. */
  function drawView(theme = readTheme(root)) {
    const view = viewOf(state.view);
    const family = view.family ?? view.name;
    if (parts.view.dataset.family !== family) {
      const fresh = element("div", { class: `view ${family}`, "data-family": family });
      parts.view.replaceWith(fresh);
      parts.view = fresh;
    }
    const focus = fitting(hover ?? state.token, data.first);
    const model = { state, data, theme, extra: data.extraOf === view.name ? data.extra : null, focus, pinned: fitting(state.token, data.first) };
    view.draw(parts.view, model, act);
  }

  function tellNote(note) {
    parts.note.textContent = note;
    parts.note.hidden = !note;
  }

  function save(kind) {
    player.stop();
    return saving.save(kind);
  }

  /** After something was done, or could not be. */
  function done(fault, note = "") {
    [trouble, reading] = [fault, ""];
    draw();
    if (note) tellNote(note);
  }

  function speak(text) {
    parts.spoken.textContent = text;
  }

  // Pointing

  /** Point at a place of the text, or at none; `lines` explain it beside the pointer. */
  function hoverAt(focus, event = null, lines = null) {
    const isSame = JSON.stringify(focus) === JSON.stringify(hover);
    hover = focus;
    if (!isSame && data.first) drawView();
    if (event || !lines) tell(lines, event);
  }

  function hoverHead(head, event) {
    tell(head === null ? null : [...describeHead(data.first, head), ...describeAnswer(data, head)], event);
  }

  function tell(lines, event = null) {
    showTooltip(parts.tooltip, lines, event);
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

  listenToKeys(root.ownerDocument, {
    move,
    play: player.toggle,
    headKeys,
    view: (name) => select("view", name),
    closeHelp: () => (parts.keys.hidden ? parts.saveMenu.hidden || saving.toggle() : showHelp()),
  });

  /** Show or hide the help, which lies over the view. */
  function showHelp() {
    parts.keys.hidden = !parts.keys.hidden;
    parts.help.setAttribute("aria-expanded", String(!parts.keys.hidden));
  }
  root.addEventListener("pointerdown", (event) => {
    if (!parts.keys.hidden && !parts.keys.contains(event.target) && !parts.help.contains(event.target)) showHelp();
    if (!parts.saveMenu.hidden && !parts.saveMenu.parentElement.contains(event.target)) saving.toggle();
  });

  listenToChart(parts.chart, { data: () => data, head: () => state.head, goTo, tell });
  new ResizeObserver(() => data.info && draw()).observe(root);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => data.info && draw());
  load().then(() => hasTour && !link && data.first && isFirstVisit() && startTour(root, parts));
  load().then(() => source.isLive && poll(root, source, { data: () => data, isLoading: () => Boolean(loading), load, failed }));

  function failed(sentence) {
    data = { ...data, fault: sentence };
    draw();
  }
  return { redraw: draw };
}
