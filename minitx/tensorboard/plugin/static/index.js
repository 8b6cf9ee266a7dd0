// The entry for TensorBoard, which loads this module into the tab's frame and calls render().

import { element } from "./draw/dom.js";
import { serverSource } from "./data/source.js";
import { startViewer } from "./frame/viewer.js";

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
  const viewer = startViewer(document.body, serverSource(), { link: linkOfHost(), linkTo, follow, hasTour: true });
  const body = hostBody();
  if (!body) return;
  const redraw = () => {
    setTheme();
    viewer.redraw();
  };
  new MutationObserver(redraw).observe(body, { attributes: true, attributeFilter: ["class"] });
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

/** Put a view into the address bar, so that a reload opens it again; not while another tab of TensorBoard is open. */
function follow(link) {
  const { location, history } = host();
  if (host() === window || location.hash.startsWith("#attention")) history.replaceState(history.state, "", linkTo(link));
}

/** TensorBoard's body, whose class tells dark mode; null if this frame was opened without TensorBoard around it. */
function hostBody() {
  return host() === window ? null : host().document.body;
}

function setTheme() {
  const body = hostBody();
  if (body) document.documentElement.dataset.theme = body.classList.contains("dark-mode") ? "dark" : "light";
}
