// Takes a view away: as a link, as a picture, as a self-contained page.

import { download } from "../draw/dom.js";
import { toLink } from "../state/link.js";
import { headName } from "../state/scores.js";
import { drawPicture } from "./export.js";

const COPIED_MILLISECONDS = 2000;

/** Show the address of the view and copy it; the button says whether that worked. */
export function showLink(parts, address) {
  parts.linkText.hidden = false;
  parts.linkText.value = address;
  parts.linkText.select();
  // navigator.clipboard is not available in a notebook's frame, nor without TLS on any host but localhost.
  const isCopied = document.execCommand("copy");
  parts.link.textContent = isCopied ? "Copied" : "Link";
  parts.spoken.textContent = isCopied ? "Link copied" : "";
  setTimeout(() => (parts.link.textContent = "Link"), COPIED_MILLISECONDS);
}

/** Save the view as a picture. */
export function savePicture(parts, state, data, theme) {
  const title = [data.run, `step ${data.firstStep}`, headName(state.head, data.first.heads)].join(" · ");
  const canvas = drawPicture({ parts, title, text: data.first.probes[0].text, theme });
  canvas.toBlob((blob) => download(blob, "attention.png"));
}

/** Save the shown text at all steps as a page; throws what the source throws. */
export async function savePageOf(source, state, data, tell) {
  const view = toLink({ ...state, run: "", probe: 0, text: "", compare: false });
  download(await source.page(data.run, data.firstStep, data.probe, view, state.text, tell), "attention.html");
}
