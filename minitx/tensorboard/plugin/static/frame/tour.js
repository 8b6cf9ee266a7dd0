// A tour of three steps for those who see the tab for the first time. Dismissed once, it does not come back by itself.

import { element } from "../draw/dom.js";

const TOUR_KEY = "minitx.attention.tour";
const CARD_GAP = 10; // pixels between the card and what it is about

/** What each step is about: [the part, text]. */
const TOUR = [
  [(parts) => parts.grid, "Each square is one head: what every token of the text attends to. Click one to look into it."],
  [(parts) => parts.view, "Point at a word: the words it attends to are shaded, the darker the more. Click to keep it."],
  [(parts) => parts.slider.parentElement, "Drag the slider, or press play, to watch the heads take shape while the model trains."],
];

/** Whether the tour was never dismissed in this browser; false where the browser keeps nothing. */
export function isFirstVisit() {
  try {
    return localStorage.getItem(TOUR_KEY) === null;
  } catch {
    return false;
  }
}

function remember() {
  try {
    localStorage.setItem(TOUR_KEY, "dismissed");
  } catch {
    // the browser keeps nothing, so the tour is not shown by itself anyway
  }
}

/** Show the tour in `root`, without what is not on view. */
export function startTour(root, parts) {
  root.querySelector(".tour")?.remove();
  const steps = TOUR.filter(([partOf]) => partOf(parts).offsetParent); // a run of one step has no slider on view
  if (!steps.length) return;
  let [step, target] = [0, null];
  const text = element("p", {});
  const count = element("span", { class: "hint" });
  const next = element("button", { type: "button", onclick: () => (step === steps.length - 1 ? end() : show(step + 1)) });
  const skip = element("button", { type: "button", class: "quiet", onclick: () => end() }, "Don’t show again");
  const card = element("div", { class: "tour", role: "dialog", "aria-label": "Tour of the tab" }, text, element("div", { class: "tour-buttons" }, count, skip, next));

  function show(at) {
    step = at;
    const [partOf, sentence] = steps[at];
    target?.classList.remove("toured");
    target = partOf(parts);
    target.classList.add("toured");
    target.scrollIntoView({ block: "nearest" });
    text.textContent = sentence;
    count.textContent = `${at + 1} of ${steps.length}`;
    next.textContent = at === steps.length - 1 ? "Done" : "Next";
    place();
    next.focus({ preventScroll: true });
  }

  /** Below the part if there is room, else above it, else over its lower end. */
  function place() {
    const about = target.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = card;
    const below = about.bottom + CARD_GAP;
    const y = below + height < window.innerHeight ? below : about.top - height - CARD_GAP > 0 ? about.top - height - CARD_GAP : window.innerHeight - height - CARD_GAP;
    const x = Math.min(Math.max(CARD_GAP, about.left), window.innerWidth - width - CARD_GAP);
    card.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`;
  }

  function end() {
    remember();
    target?.classList.remove("toured");
    root.removeEventListener("keydown", onKey);
    window.removeEventListener("resize", place);
    card.remove();
  }

  const onKey = (event) => event.key === "Escape" && end();
  root.addEventListener("keydown", onKey);
  window.addEventListener("resize", place);
  root.append(card);
  show(0);
}
