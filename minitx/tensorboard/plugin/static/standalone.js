// The entry of a self-contained HTML file, which holds its data (see page.py).

import { element } from "./dom.js";
import { fileSource } from "./source.js";
import { startViewer } from "./viewer.js";

try {
  const data = JSON.parse(document.getElementById("data").textContent);
  const link = window.location.hash.slice(1) || data.view;
  startViewer(document.body, fileSource(data), { link, linkTo: (text) => `${window.location.href.split("#")[0]}#${text}` });
} catch (error) {
  document.body.append(element("p", { class: "fault" }, error.message));
}
