// The box beside the pointer that explains what lies under it.

import { element } from "../draw/dom.js";

/** Show `lines` beside the pointer of `event`, within the window; hide the box without lines. */
export function showTooltip(tooltip, lines, event) {
  tooltip.hidden = !lines;
  if (!lines || !event) return;
  tooltip.replaceChildren(...lines.map((line) => element("div", {}, line)));
  const { offsetWidth, offsetHeight } = tooltip;
  const x = Math.min(event.clientX + 14, window.innerWidth - offsetWidth - 6);
  const y = event.clientY + 18 + offsetHeight > window.innerHeight ? event.clientY - offsetHeight - 10 : event.clientY + 18;
  tooltip.style.transform = `translate(${Math.max(4, x)}px, ${Math.max(4, y)}px)`;
}
