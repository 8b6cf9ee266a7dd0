// The menu of guided examples, and the sentence of the one that was chosen.

import { findGuides } from "../data/guides.js";
import { element } from "../draw/dom.js";

const NONE = "Nothing stands out in this run yet. Train it longer, or choose another run.";

/** A menu that fills itself when it is opened. `change(changes)` shows a guide; `data()` is what is loaded. */
export function createGuideMenu(root, parts, { source, data, change }) {
  let shown = null; // the chosen guide and the run it is about

  async function toggle() {
    if (!parts.guideMenu.hidden) return close();
    parts.guideMenu.replaceChildren(element("p", { class: "hint" }, "Looking through the run …"));
    open(true);
    try {
      const guides = data().info ? await findGuides(source, data()) : [];
      parts.guideMenu.replaceChildren(...(guides.length ? guides.map(entryOf) : [element("p", { class: "hint" }, NONE)]));
      if (parts.guideButton === root.ownerDocument.activeElement) parts.guideMenu.querySelector("button")?.focus();
    } catch (error) {
      parts.guideMenu.replaceChildren(element("p", { class: "hint" }, error.message));
    }
    return undefined;
  }

  function entryOf(guide) {
    const choose = () => {
      close();
      shown = { ...guide, run: data().run };
      change(guide.changes);
    };
    return element("button", { type: "button", class: "guide-entry", onclick: choose }, element("strong", {}, guide.title), element("span", {}, guide.sentence));
  }

  function open(isOpen) {
    parts.guideMenu.hidden = !isOpen;
    parts.guideButton.setAttribute("aria-expanded", String(isOpen));
  }

  const close = () => open(false);

  root.addEventListener("pointerdown", (event) => {
    if (!parts.guideMenu.contains(event.target) && event.target !== parts.guideButton) close();
  });
  root.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || parts.guideMenu.hidden) return;
    close();
    parts.guideButton.focus();
  });
  parts.guideClose.addEventListener("click", () => {
    shown = null;
    parts.guide.hidden = true;
  });

  return {
    toggle,
    /** Show the sentence of the chosen guide for as long as its head, text and view are shown. */
    draw(state, { run }) {
      const isOn = shown && shown.run === run && ["head", "probe", "view"].every((name) => shown.changes[name] === undefined || shown.changes[name] === state[name]);
      if (!isOn) shown = null;
      parts.guide.hidden = !isOn;
      if (isOn) parts.guideText.textContent = `${shown.title}: ${shown.sentence}`;
    },
  };
}
