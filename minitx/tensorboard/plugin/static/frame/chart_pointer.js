// Pointing at the chart: a step's value beside the pointer, and a press goes to that step.

import { figure, headName } from "../state/scores.js";

/** Listen on the canvas `chart`, whose layout controls.js sets. */
export function listenToChart(chart, { data, head, goTo, tell }) {
  const stepUnder = (event) => chart.layout.stepAt(event.clientX - chart.getBoundingClientRect().left);
  chart.addEventListener("pointermove", (event) => {
    const step = stepUnder(event);
    const { chart: { steps, values }, first } = data();
    tell([`step ${step}`, `${headName(head(), first.heads)}: ${figure(values[steps.indexOf(step)]?.[head()])}`], event);
    if (event.buttons === 1) goTo(step);
  });
  chart.addEventListener("pointerleave", () => tell(null));
  chart.addEventListener("pointerdown", (event) => goTo(stepUnder(event)));
}
