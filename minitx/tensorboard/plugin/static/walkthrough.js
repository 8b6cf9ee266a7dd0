// The entry of a walkthrough's page: one layer as blocks, at every position of one text, from the page's own data.

import { element } from "./draw/dom.js";
import { readTheme } from "./draw/theme.js";
import { BLOCKS_VIEW } from "./views/blocks.js";

startWalkthrough(JSON.parse(document.getElementById("data").textContent));

function startWalkthrough({ tokens, heads, keys, values, answers, ...opening }) {
  let { head, position } = opening;
  const [root, tooltip] = ["blocks", "tooltip"].map((name) => document.getElementById(name));
  const act = { tell: (lines, event) => tellAt(tooltip, lines, event), chooseHead, pin };
  draw();
  window.addEventListener("resize", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

  function draw() {
    const data = { first: { heads, probes: [{ tokens }] } };
    BLOCKS_VIEW.draw(root, { state: { head }, data, theme: readTheme(document.body), extra: answerAt(position) }, act);
  }

  /** The page holds keys and values once, not in every answer. */
  function answerAt(place) {
    const answer = answers.find((one) => one.position === place);
    const whole = (one) => ({ ...one, keys: one.read.map((key) => keys[one.kv_head][key]), values: one.read.map((key) => values[one.kv_head][key]) });
    return answer && { ...answer, heads: answer.heads.map(whole) };
  }

  function chooseHead(chosen) {
    head = chosen;
    draw();
  }

  function pin({ query }) {
    if (answerAt(query)) position = query;
    draw();
  }
}

function tellAt(tooltip, lines, event) {
  tooltip.hidden = !lines;
  if (!lines) return;
  tooltip.replaceChildren(...lines.map((one) => element("div", {}, one)));
  const x = Math.min(event.clientX + 14, window.innerWidth - tooltip.offsetWidth - 6);
  const isLow = event.clientY + 18 + tooltip.offsetHeight > window.innerHeight;
  tooltip.style.transform = `translate(${Math.max(4, x)}px, ${isLow ? event.clientY - tooltip.offsetHeight - 10 : event.clientY + 18}px)`;
}
