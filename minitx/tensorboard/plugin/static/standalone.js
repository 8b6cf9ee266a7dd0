// The entry of a self-contained HTML file, which holds its data (see page.py).

import { element } from "./draw/dom.js";
import { fileSource } from "./data/source.js";
import { startViewer } from "./frame/viewer.js";

try {
  const data = JSON.parse(document.getElementById("data").textContent);
  const link = window.location.hash.slice(1) || data.view;
  const linkTo = (text) => `${window.location.href.split("#")[0]}#${text}`;
  const follow = (text) => window.history.replaceState(null, "", linkTo(text));
  startViewer(document.body, fileSource(data), { link, linkTo, follow });
} catch (error) {
  document.body.append(element("p", { class: "fault" }, error.message));
}
