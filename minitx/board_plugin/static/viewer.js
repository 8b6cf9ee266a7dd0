// The viewer: one state, the data that it asks for, and what is drawn from both.
//
// Every action calls `change`; that loads what the new state needs from the source (source.js) and draws. While data
// is on its way further changes are only noted, so that dragging the slider never queues up requests.

import { drawChart, chartLayout } from "./chart.js";
import { download, element, fillSelect, fitCanvas } from "./dom.js";
import { gather, otherHead } from "./gather.js";
import { drawPicture } from "./picture.js";
import { buildSkeleton } from "./skeleton.js";
import { strongest, weightAt } from "./snapshot.js";
import { createStage, drawStage, showFocus, signed } from "./stage.js";
import { MEANINGS, START, figure, fromLink, headName, headsWithin, nearestOf, scoreTitle, toLink } from "./state.js";
import { describeHead, drawSurvey, neighbour } from "./survey.js";
import { headColour, readTheme } from "./theme.js";

const POLL_MILLISECONDS = 3000;

const TITLES = {
  map: "Rows: tokens. Columns: what they attend to.",
  columns: "Point at a token for its own lines.",
  arcs: "Arcs lead back to what a token attends to. Point at one for its own.",
};

/** Fill `root` with a viewer of `source`; `link` is what to open with, `linkTo(text)` the address of a view. */
export function startViewer(root, source, { link = "", linkTo }) {
  let state = { ...START, ...fromLink(link) };
  let data = { runs: [], info: null, first: null, second: null, chart: null, fault: "", note: "" };
  let hover = null;
  let [isLoading, isStale] = [false, false];
  let player = null;
  const parts = buildSkeleton(root, {
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
    ownText: (text) => text.trim() && change({ probe: -1, text: text.trim(), token: null }),
  });
  const stages = [0, 1, 2].map(() => createStage({ hover: hoverPattern, press: pin, keys: patternKeys }));
  parts.stages.append(...stages.map((stage) => stage.root));
  parts.own.value = state.text;

  // State

  function change(changes) {
    state = { ...state, ...changes };
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

  function toggle(name) {
    change({ [name]: !state[name] });
  }

  function choose(head, isAdded) {
    if (!isAdded) return change({ head, shown: state.shown.length > 1 ? sameLayerAs(head) : [head] });
    const shown = state.shown.includes(head) ? state.shown.filter((one) => one !== head) : [...state.shown, head];
    return change({ shown: shown.length ? shown : [head], head: shown.includes(head) ? head : (shown.at(-1) ?? head) });
  }

  /** The heads on view where the chosen one moves to `head`: in its own layer they stay, in another they move along. */
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

  /** Go to a step; at the newest one the viewer follows the run. */
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

  async function load(isFresh = false) {
    isStale = isStale || isFresh ? "fresh" : true;
    if (isLoading) return;
    isLoading = true;
    while (isStale) {
      const wasFresh = isStale === "fresh";
      isStale = false;
      const found = await gather(source, data, state, wasFresh, tellNote);
      if (!isStale || found.first) data = found;
      draw();
    }
    isLoading = false;
  }

  // Drawing

  function draw() {
    const started = performance.now();
    const theme = readTheme(root);
    drawControls();
    const { first } = data;
    root.classList.toggle("empty", !first);
    if (first) {
      state = { ...state, ...headsWithin(state, first.count) };
      drawSurvey(parts.grid, first, { ...state, score: data.score }, theme, { choose, hover: hoverHead, keys: headKeys });
      drawHeading(theme);
      drawChips(theme);
      drawStages(theme);
    }
    drawTimeline(theme);
    root.dataset.step = data.step ?? "";
    root.dataset.redraw = (performance.now() - started).toFixed(1);
    root.dataset.drawn = Number(root.dataset.drawn ?? 0) + 1;
  }

  function drawControls() {
    const { info, runs, first } = data;
    const asOption = (value) => ({ value, label: value });
    fillSelect(parts.run, runs.map(asOption), data.run ?? "");
    const probes = (info?.newest?.probes ?? []).map((probe, index) => ({ value: index, label: shortText(probe.text) }));
    if (data.probe === -1) probes.push({ value: -1, label: `your text: ${shortText(state.text)}` });
    fillSelect(parts.probe, probes, data.probe ?? 0);
    const names = Object.keys(info?.newest?.scores ?? {});
    const scores = names.map((name) => ({ value: name, label: scoreTitle(name), title: MEANINGS[name] }));
    fillSelect(parts.score, [{ value: "", label: "none" }, ...scores], names.includes(data.score) ? data.score : "");
    parts.score.title = MEANINGS[data.score] ?? "Score of heads";
    parts.scoreField.hidden = parts.sort.hidden = !names.length;
    for (const name of ["sort", "compare", "first", "links"]) parts[name].setAttribute("aria-pressed", String(state[name]));
    for (const [view, button] of Object.entries(parts.views)) button.setAttribute("aria-pressed", String(state.view === view));
    parts.sort.disabled = !data.score;
    parts.first.hidden = state.view === "map";
    parts.links.hidden = !first?.probes[0].links.length;
    parts.others.hidden = !state.compare;
    if (state.compare && first) drawOthers(asOption);
    const steps = info?.steps ?? [];
    parts.slider.min = steps[0] ?? 0;
    parts.slider.max = steps.at(-1) ?? 0;
    parts.slider.value = currentStep() ?? 0;
    parts.slider.setAttribute("aria-valuetext", `step ${data.step ?? ""}`);
    parts.step.textContent = steps.length ? `step ${currentStep().toLocaleString("en")}` : "";
    parts.live.textContent = source.isLive && state.step === null && steps.length ? "● newest" : "";
    parts.play.textContent = player ? "❚❚" : "▶";
    parts.play.setAttribute("aria-label", player ? "Pause" : "Play");
    parts.ownForm.hidden = !source.ownText;
    parts.own.disabled = parts.look.disabled = Boolean(data.refusal);
    parts.own.title = data.refusal ?? "";
    parts.page.hidden = !source.page;
    parts.fault.textContent = data.fault;
    parts.fault.hidden = !data.fault;
    parts.note.textContent = data.note;
    parts.note.hidden = !data.note;
  }

  function tellNote(note) {
    parts.note.textContent = note;
    parts.note.hidden = false;
  }

  function drawOthers(asOption) {
    fillSelect(parts.otherRun, data.runs.map(asOption), data.otherRun ?? data.run);
    const steps = data.otherInfo?.steps ?? [];
    fillSelect(parts.otherStep, [{ value: "", label: "same step" }, ...steps.map((step) => ({ value: step, label: `step ${step}` }))], state.other.step === null ? "" : nearestOf(steps, state.other.step));
    const other = data.second ?? data.first;
    const heads = Array.from({ length: other.count }, (_, head) => ({ value: head, label: headName(head, other.heads) }));
    fillSelect(parts.otherHead, [{ value: "", label: "same head" }, ...heads], state.other.head ?? "");
    parts.otherRun.hidden = data.runs.length < 2;
  }

  function drawHeading(theme) {
    const { first } = data;
    const [name, ...facts] = describeHead(first, state.head);
    parts.heading.textContent = name[0].toUpperCase() + name.slice(1);
    parts.heading.style.setProperty("--head", headColour(theme, state.head, first.heads));
    parts.facts.replaceChildren(...facts.map((fact) => element("span", { class: fact.startsWith("role") ? "fact role" : "fact" }, fact)));
    parts.facts.hidden = !facts.length;
  }

  function drawChips(theme) {
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
            title: `Toggle ${headName(head, first.heads)}`,
            onclick: () => choose(head, true),
          },
          headName(head, first.heads, true),
        ),
      ),
    );
    parts.chips.parentElement.hidden = state.view === "map" || (state.view === "both" && Boolean(data.second));
  }

  function drawStages(theme) {
    const { first, second } = data;
    const view = state.view === "both" && second ? "map" : state.view;
    const contents = (view === "both" ? ["map", "columns"] : [view]).map((one) => content(first, state.head, state.shown, one, theme));
    if (second) {
      const head = otherHead(data.first, data.second, state);
      const isSameShape = second.layers === first.layers && second.heads === first.heads;
      const heads = state.other.head !== null || !isSameShape ? [head] : state.shown;
      contents[0].title = sideTitle(data.run, data.step, state.head, first);
      contents.push({ ...content(second, head, heads, view, theme), title: sideTitle(data.otherRun, data.otherStep, head, second) });
      const [a, b] = [first.probes[0], second.probes[0]];
      const isSame = a.seq === b.seq && a.tokens.every((token, index) => token === b.tokens[index]);
      const packed = [a.whole(state.head), b.whole(head)];
      if (isSame && packed.every(Boolean)) {
        contents.push({ ...contents[0], view: "map", heads: [{ head: state.head, packed: packed[0] }], against: packed[1], title: "second − first" });
      } else if (!isSame) {
        tellNote("The two runs cut this text into different tokens, so there is no difference to show.");
      }
    }
    parts.stages.classList.toggle("several", contents.length > 1);
    const focus = hover ?? state.token;
    for (const [index, stage] of stages.entries()) {
      stage.root.hidden = index >= contents.length || !contents[index].heads.length;
    }
    for (const [index, stage] of stages.entries()) {
      if (!stage.root.hidden) drawStage(stage, contents[index], fitting(focus, contents[index]), state, theme);
    }
  }

  function content(snapshot, head, shown, view, theme) {
    const probe = snapshot.probes[0];
    const heads = (view === "map" ? [head] : shown).map((one) => ({ head: one, name: headName(one, snapshot.heads, true), colour: headColour(theme, one, snapshot.heads), packed: probe.whole(one) }));
    return { title: TITLES[view], view, probe, heads: heads.filter((one) => one.packed) };
  }

  const fitting = (focus, { probe }) => (focus && Math.max(focus.query ?? 0, focus.key ?? 0) < probe.seq ? focus : null);

  function sideTitle(run, step, head, snapshot) {
    return [data.runs.length > 1 ? run : "", `step ${step}`, headName(head, snapshot.heads)].filter(Boolean).join(" · ");
  }

  function drawTimeline(theme) {
    const { chart, first, info } = data;
    const isShown = Boolean(chart && first && info.steps.length > 1);
    parts.chartBox.hidden = parts.chartTitle.hidden = !isShown;
    parts.slider.parentElement.hidden = !(info?.steps.length > 1);
    if (!isShown) return;
    const dashed = chart.chance.some((value) => value !== null) ? "; dashed: even attention" : "";
    parts.chartTitle.textContent = `${scoreTitle(data.score)} of every head against steps${dashed}`;
    parts.chartTitle.title = MEANINGS[data.score] ?? "";
    parts.chart.setAttribute("aria-label", `${parts.chartTitle.textContent}; the slider below moves through the steps`);
    const [width, height] = [parts.chartBox.clientWidth, parts.chartBox.clientHeight];
    const order = [...state.shown.filter((head) => head !== state.head), state.head];
    const shown = {
      ...chart,
      current: data.step,
      other: state.compare && data.otherRun === data.run ? data.otherStep : null,
      heads: order.map((head) => ({ head, colour: headColour(theme, head, first.heads), name: headName(head, first.heads, true) })),
    };
    parts.chart.layout = chartLayout(shown, width, height);
    drawChart(fitCanvas(parts.chart, width, height), parts.chart.layout, shown, theme);
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

  /** What is under the pointer, in lines of text. */
  function describeFocus({ probe, heads, against, view }, { query, key }) {
    if (view === "map") {
      const weight = weightAt(heads[0].packed, query, key);
      const pair = `${probe.tokens[query]} → ${probe.tokens[key]}`;
      if (!against) return [pair, figure(weight), `token ${query} to token ${key}`];
      const other = weightAt(against, query, key);
      return [pair, signed(other - weight), `${figure(weight)} and ${figure(other)}`];
    }
    const lines = [probe.tokens[query ?? key]];
    for (const { name, packed } of heads.slice(0, 6)) {
      const list = (found) => found.map(({ token, weight }) => `${probe.tokens[token]} ${figure(weight)}`).join(", ");
      if (query !== null) lines.push(`${name} attends to ${list(strongest(packed, probe.seq, { query }, 3))}`);
      if (key !== null) lines.push(`${name} is read by ${list(strongest(packed, probe.seq, { key }, 3))}`);
    }
    return lines;
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
    const { probe, view } = stage.content;
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
    hover = now ? moved(now, arrows, view, probe.seq) : view === "columns" ? { query: probe.seq - 1, key: null } : { query: probe.seq - 1, key: view === "map" ? 0 : probe.seq - 1 };
    drawStages(readTheme(root));
    showFocus(stage, hover);
    parts.spoken.textContent = describeFocus(stage.content, hover).join("; ");
    return undefined;
  }

  function moved({ query, key }, [down, right], view, seq) {
    const within = (value, most) => Math.min(most, Math.max(0, value));
    if (view === "map") {
      const row = within((query ?? 0) + down, seq - 1);
      return { query: row, key: within((key ?? 0) + right, row) };
    }
    if (view === "arcs") {
      const token = within((query ?? key) + right + down, seq - 1);
      return { query: token, key: token };
    }
    const token = within((query ?? key) + down, seq - 1);
    const isLeft = right ? right < 0 : query !== null;
    return isLeft ? { query: token, key: null } : { query: null, key: token };
  }

  root.ownerDocument.addEventListener("keydown", (event) => {
    const isTyping = event.target.closest?.("input, select, textarea");
    if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
    const views = { 1: "both", 2: "map", 3: "columns", 4: "arcs" };
    if (event.key === ",") move(-1);
    else if (event.key === ".") move(1);
    else if (event.key === " " && !event.target.closest?.("button")) play();
    else if (views[event.key]) change({ view: views[event.key] });
    else if (event.key.startsWith("Arrow")) return headKeys(event);
    else return undefined;
    event.preventDefault();
    return undefined;
  });

  /** On the slider an arrow key goes to the next snapshot, wherever that is. */
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
      clearTimeout(player);
      player = null;
      return draw();
    }
    if (steps.length < 2) return undefined;
    const pause = Math.min(500, Math.max(30, 12000 / steps.length));
    const next = async () => {
      const at = data.info.steps.indexOf(currentStep());
      if (at >= data.info.steps.length - 1) {
        player = null;
        return draw();
      }
      await goTo(data.info.steps[at + 1]);
      if (player) player = setTimeout(next, pause);
      return undefined;
    };
    player = setTimeout(next, pause);
    return currentStep() === steps.at(-1) ? goTo(steps[0]) : draw();
  }

  async function poll() {
    const isSeen = !document.hidden && window.innerHeight > 0 && root.isConnected;
    if (isSeen && !isLoading) {
      try {
        const { runs } = await source.runs();
        const info = data.run && runs.includes(data.run) ? await source.run(data.run) : null;
        const mark = (one) => one && [one.steps.length, one.steps.at(-1), one.newest?.written, one.checkpoints.join()].join("|");
        if (runs.join("\n") !== data.runs.join("\n") || mark(info) !== mark(data.info) || data.fault) {
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

  /** Keys and scores, or no more; what stands below has another size then. */
  function showHelp() {
    parts.keys.hidden = !parts.keys.hidden;
    if (data.info) draw();
  }

  // Taking away

  function showLink() {
    const address = linkTo(toLink({ ...state, run: data.run ?? state.run }));
    parts.linkText.hidden = false;
    parts.linkText.value = address;
    parts.linkText.select();
    navigator.clipboard?.writeText(address).then(() => (parts.spoken.textContent = "Link copied"), () => {});
  }

  function savePicture() {
    const facts = [data.run, `step ${data.step}`, headName(state.head, data.first.heads)].join(" · ");
    const canvas = drawPicture({ parts, stages, title: facts, text: data.first.probes[0].text, theme: readTheme(root) });
    canvas.toBlob((blob) => download(blob, "attention.png"));
  }

  async function savePage() {
    const link = toLink({ ...state, run: "", probe: 0, text: "", compare: false });
    try {
      download(await source.page(data.run, data.first.step, data.probe, link, state.text), "attention.html");
    } catch (error) {
      data = { ...data, fault: error.message };
      draw();
    }
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

function shortText(text) {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length > 60 ? `${line.slice(0, 59)}…` : line;
}
