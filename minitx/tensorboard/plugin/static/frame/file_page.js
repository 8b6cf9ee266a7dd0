// Starts the viewer of a self-contained HTML file, which holds its data (see page.py); a notebook's cell frames such a page.

import { element } from "../draw/dom.js";
import { startViewer } from "./viewer.js";

/** Show the data of this page by the source that `sourceOf(data)` makes of it. */
export function startFilePage(sourceOf) {
  const cell = window.frameElement; // the frame in a notebook; null in a page of its own
  try {
    const data = JSON.parse(document.getElementById("data").textContent);
    const setTheme = () => (document.documentElement.dataset.theme = isLight(getComputedStyle(cell).color) ? "dark" : "light");
    if (cell) setTheme();
    const link = window.location.hash.slice(1) || data.view;
    const linkTo = (text) => (cell ? text : `${window.location.href.split("#")[0]}#${text}`);
    const follow = (text) => cell ?? window.history.replaceState(null, "", linkTo(text));
    const source = sourceOf(data);
    const viewer = startViewer(document.body, source, { link, linkTo, follow });
    cell?.addEventListener("transitionend", () => { // the letters around the frame took another colour (see cell.py)
      setTheme();
      viewer.redraw();
    });
    // VS Code scrolls a notebook only by the wheel that it is told of; not passive: asked before the page scrolls.
    const wheel = (event) => {
      if (!event.defaultPrevented && !scrollsHere(event)) cell.dispatchEvent(new WheelEvent("wheel", event));
    };
    if (cell) window.addEventListener("wheel", wheel, { passive: false });
    return source;
  } catch (error) {
    document.body.append(element("p", { class: "fault" }, error.message));
    return null;
  }
}

/** Whether a colour of CSS is light: light letters around the frame stand on a dark notebook. */
function isLight(colour) {
  const [r, g, b] = colour.match(/[\d.]+/g).map(Number);
  return 0.3 * r + 0.59 * g + 0.11 * b > 128;
}

/** Whether the wheel scrolls a part of the page, and so not the notebook around it. */
function scrollsHere({ target, deltaY }) {
  for (let part = target; part; part = part.parentElement) {
    const rest = deltaY < 0 ? part.scrollTop : part.scrollHeight - part.clientHeight - part.scrollTop;
    const styled = part.parentElement ? part : document.body; // the body says how the whole page scrolls
    if (rest >= 1 && /auto|scroll/.test(getComputedStyle(styled).overflowY)) return true;
  }
  return false;
}
