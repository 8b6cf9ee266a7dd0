// The entry for TensorBoard, which loads this module into the tab's frame and calls render().

import { element } from "./dom.js";
import { serverSource } from "./source.js";
import { startViewer } from "./viewer.js";

const KEY = "p.attention.view";

/** Fill the frame. */
export function render() {
  document.head.append(
    element("meta", { name: "viewport", content: "width=device-width, initial-scale=1" }),
    element("link", { rel: "stylesheet", href: new URL("style.css", import.meta.url).href, onload: start }),
  );
}

function start() {
  setTheme();
  const viewer = startViewer(document.body, serverSource(), { link: linkOfHost(), linkTo });
  const body = hostBody();
  if (!body) return;
  const follow = () => {
    setTheme();
    viewer.redraw();
  };
  new MutationObserver(follow).observe(body, { attributes: true, attributeFilter: ["class"] });
}

/** The window of TensorBoard, or this one if the window around it is from another origin. */
function host() {
  try {
    return window.parent.location.href ? window.parent : window;
  } catch {
    return window;
  }
}

function linkOfHost() {
  const values = new URLSearchParams(host().location.hash.replace(/^#[^&]*&?/, ""));
  return values.get(KEY) ?? "";
}

function linkTo(link) {
  return `${host().location.href.split("#")[0]}#attention&${KEY}=${encodeURIComponent(link)}`;
}

/** TensorBoard's body, whose class tells dark mode; null if this frame was opened without TensorBoard around it. */
function hostBody() {
  return host() === window ? null : host().document.body;
}

function setTheme() {
  const body = hostBody();
  if (body) document.documentElement.dataset.theme = body.classList.contains("dark-mode") ? "dark" : "light";
}
