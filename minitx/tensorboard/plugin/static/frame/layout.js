// Builds every control and box of the viewer, once. controls.js and viewer.js fill them.

import { element } from "../draw/dom.js";
import { HOW_WORDS } from "../data/words.js";
import { GLOSSARY } from "../state/glossary.js";
import { MEANINGS, meaning, scoreTitle } from "../state/scores.js";
import { GROUPS } from "../views/views.js";
import { questionBox } from "./asking.js";
import { KEY_HELP } from "./keys.js";

/** Build the page into `root`; returns its parts by name. */
export function buildLayout(root, act) {
  const select = (name, label) => element("select", { "aria-label": label, title: label, onchange: (event) => act.select(name, event.target.value) });
  const button = (label, title, onclick, extra = {}) => element("button", { type: "button", title, onclick, ...extra }, label);
  const field = (label, control) => element("label", { class: "field" }, element("span", {}, label), control);
  const parts = {
    run: select("run", "Run"),
    probe: select("probe", "Text"),
    score: select("score", "Score of heads"),
    measured: select("measured", "Text that heads are scored on"),
    words: button("Words", `Show words, where the tokenizer cuts them into pieces. ${HOW_WORDS}`, () => act.select("units", "words")),
    tokens: button("Tokens", "Show the tokens that the model reads", () => act.select("units", "tokens")),
    sort: button("Sort", "Sort the squares by this score, the greatest first", () => act.toggle("sort"), { class: "toggle" }),
    compare: button("Compare", "Show a second run, step or head beside this one", () => act.toggle("compare"), { class: "toggle" }),
    otherRun: select("otherRun", "Run to compare with"),
    otherStep: select("otherStep", "Step to compare with"),
    otherHead: select("otherHead", "Head to compare with"),
    first: button("Attention sink", `Draw the attention to the attention sink: ${GLOSSARY["attention sink"]}`, () => act.toggle("first"), { class: "toggle" }),
    links: button("Links", `Draw the labelled links of this text: ${GLOSSARY["labelled link"]}`, () => act.toggle("links"), { class: "toggle" }),
    allHeads: button("Whole layer", "Show all heads of this layer together", () => act.overlay("all")),
    oneHead: button("One head", "Show the chosen head alone", () => act.overlay("one")),
    link: button("Link", "Copy a link that opens this view again", act.link),
    save: button("Save", "Save this view or this text as a file", act.toggleSave, { "aria-haspopup": "true", "aria-expanded": "false" }),
    saveMenu: element("div", { class: "menu", hidden: true }),
    page: button("HTML", "This text at its steps, as one file that opens without TensorBoard", () => act.save("html")),
    help: button("?", "Help: keys, words and scores", act.showHelp, { class: "round", "aria-label": "Help: keys, words and scores", "aria-expanded": "false" }),
    guideButton: button("Guided examples", "What is worth a look in this run", act.guides, { "aria-expanded": "false" }),
    guideMenu: element("div", { class: "keys guides", hidden: true }),
    guideText: element("span", {}),
    guideClose: element("button", { type: "button", class: "round", "aria-label": "Close this sentence" }, "×"),
    play: button("▶", "Play", act.play, { class: "round play", "aria-label": "Play" }),
    slider: element("input", { type: "range", min: 0, max: 0, step: 1, "aria-label": "Step", oninput: (event) => act.slide(Number(event.target.value)), onkeydown: act.slideKey }),
    step: element("output", { class: "step" }),
    live: element("span", { class: "live", title: "Follows the newest snapshot" }),
    grid: element("div", { class: "grid", role: "group", "aria-label": "Heads" }),
    hint: element("p", { class: "hint", title: `Pattern: ${GLOSSARY.pattern}` }, "Each square is the pattern of one head: a row for each token, a column for each token it attends to. Click one."),
    unknown: element("p", { class: "hint", role: "status", hidden: true }),
    heading: element("h2", {}),
    facts: element("p", { class: "facts" }),
    chips: element("div", { class: "chips", role: "group", "aria-label": "Heads laid over each other" }),
    view: element("div", { class: "view" }),
    chart: element("canvas", { class: "chart", role: "img" }),
    chartBox: null,
    chartTitle: element("span", { class: "chart-title" }),
    note: element("p", { class: "note", role: "status", hidden: true }),
    fault: element("p", { class: "fault", role: "alert", hidden: true }),
    tooltip: element("div", { class: "tooltip", hidden: true }),
    spoken: element("div", { class: "spoken", "aria-live": "polite" }),
    own: element("textarea", { rows: 1, placeholder: "Type your own text …", "aria-label": "Your own text", onkeydown: submitOnEnter }),
    look: element("button", { type: "submit", title: "Have the model read your text, with the weights of the nearest step that is kept" }, "Read"),
    linkText: element("input", { type: "text", readonly: true, class: "link-text", hidden: true, "aria-label": "Link to this view" }),
    views: {},
  };
  parts.saveMenu.append(
    button("PNG", "A picture of this view, twice as fine as the screen", () => act.save("png")),
    button("SVG", "A drawing of this view, sharp at every size", () => act.save("svg")),
    button("GIF", "A film of this view at all steps", () => act.save("gif")),
    parts.page,
  );
  Object.assign(parts, questionBox({ askTo: act.askTo, end: act.endQuestion }));
  const groups = GROUPS.map(([about, views]) => {
    for (const { name, label, title } of views) parts.views[name] = button(label, title, () => act.select("view", name));
    return element("div", { class: "view-group", role: "group", "aria-label": about }, element("span", { class: "group-name" }, about), element("div", { class: "segments" }, ...views.map(({ name }) => parts.views[name])));
  });
  const scores = [...Object.entries(MEANINGS).map(([name, text]) => [scoreTitle(name), text]), ["tales …", meaning("tales_")]];
  const list = (rows) => element("dl", {}, ...rows.flatMap(([term, meaning]) => [element("dt", {}, term), element("dd", {}, meaning)]));
  parts.guide = element("p", { class: "note guide", hidden: true }, parts.guideText, parts.guideClose);
  parts.keys = element("div", { class: "keys", hidden: true }, button("Show the tour", "Three steps through the tab", act.tour), list(KEY_HELP), list(Object.entries(GLOSSARY)), list(scores));
  parts.ownForm = element("form", { class: "own", onsubmit: (event) => { event.preventDefault(); act.ownText(parts.own.value); } }, parts.own, parts.look);
  parts.others = element("div", { class: "others" }, element("span", {}, "with"), parts.otherRun, parts.otherStep, parts.otherHead);
  parts.chartBox = element("div", { class: "chart-box" }, parts.chart);
  parts.units = element("div", { class: "segments", role: "group", "aria-label": "Units" }, parts.words, parts.tokens);
  parts.scoreField = field("Score", parts.score);
  root.replaceChildren(
    element("header", { class: "bar" },
      field("Run", parts.run), field("Text", parts.probe), parts.ownForm, parts.guideButton,
      element("div", { class: "away" }, parts.linkText, parts.link, element("div", { class: "save" }, parts.save, parts.saveMenu), parts.help),
      parts.keys, parts.guideMenu),
    parts.fault, parts.note,
    element("main", {},
      element("section", { class: "survey", "aria-label": "Survey" },
        element("div", { class: "tools" }, parts.scoreField, parts.measured, parts.sort), parts.question, parts.hint, parts.unknown, element("div", { class: "scroll" }, parts.grid)),
      element("section", { class: "zoom", "aria-label": "Chosen head" },
        element("div", { class: "views", role: "group", "aria-label": "Views" }, ...groups),
        element("div", { class: "tools" },
          parts.heading, parts.units, parts.chips, element("div", { class: "segments" }, parts.oneHead, parts.allHeads),
          parts.first, parts.links, parts.compare, parts.others),
        parts.facts, parts.guide,
        parts.view)),
    element("footer", {},
      element("div", { class: "time-title" }, parts.chartTitle, parts.live, parts.step),
      parts.chartBox,
      element("div", { class: "time" }, parts.play, parts.slider)),
    parts.tooltip, parts.spoken);
  root.classList.add("attention");
  return parts;
}

/** Enter runs the text; with Shift it begins a new line. */
function submitOnEnter(event) {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  event.target.form.requestSubmit();
}
