// Zooms the maps of a view by the wheel, two fingers or buttons, all maps alike; a zoomed map is dragged or scrolled.

import { element } from "../draw/dom.js";

const [WHEEL, PINCH_WHEEL, BUTTON] = [0.0016, 0.01, 1.5];
const DRAG_PIXELS = 4;

/**
 * Let `stages` be zoomed. root.zoom is the zoom, 1 where all fits; `redraw()` draws the view with it. A point of the map
 * that is zoomed at stays where it is.
 */
export function addMagnifier(root, stages, redraw) {
  root.zoom = 1;
  const isMap = (stage) => stage.content?.view === "map" && !stage.root.hidden;

  /** Zoom by `factor` at (x, y) of a stage's box. */
  function zoomBy(stage, factor, x = stage.box.clientWidth / 2, y = stage.box.clientHeight / 2) {
    const before = stage.layout;
    const zoom = Math.min(before.mostZoom, Math.max(1, root.zoom * factor));
    if (!isMap(stage) || zoom === root.zoom) return;
    const { box } = stage;
    const place = [(x + box.scrollLeft - before.left) / before.cell, (y + box.scrollTop - before.top) / before.cell];
    root.zoom = zoom;
    redraw();
    const after = stage.layout;
    scrollTo(after.left + place[0] * after.cell - x, after.top + place[1] * after.cell - y);
  }

  function scrollTo(x, y) {
    for (const { box } of stages.filter(isMap)) {
      box.scrollLeft = x;
      box.scrollTop = y;
    }
  }

  for (const stage of stages) {
    const { box } = stage;
    const at = (event) => {
      const place = box.getBoundingClientRect();
      return [event.clientX - place.left, event.clientY - place.top];
    };
    const button = (label, title, act) => element("button", { type: "button", title, "aria-label": title, onclick: act }, label);
    stage.magnify.append(
      button("−", "Zoom out", () => zoomBy(stage, 1 / BUTTON)),
      button("+", "Zoom in (also the wheel, or two fingers; drag to move)", () => zoomBy(stage, BUTTON)),
      button("Fit", "Show the whole map", () => zoomBy(stage, 0)),
    );
    box.addEventListener("wheel", (event) => {
      if (!isMap(stage) || event.shiftKey) return;
      const factor = Math.exp(-event.deltaY * (event.ctrlKey ? PINCH_WHEEL : WHEEL));
      if (root.zoom > 1 || factor > 1) event.preventDefault(); // else the page around scrolls
      zoomBy(stage, factor, ...at(event));
    }, { passive: false });
    box.addEventListener("scroll", () => isMap(stage) && scrollTo(box.scrollLeft, box.scrollTop));
    listenToPinch(box, () => isMap(stage), (factor, event) => zoomBy(stage, factor, ...at(event)));
    listenToDrag(stage, () => isMap(stage) && root.zoom > 1);
  }
}

/** Call zoom(factor, middle of the fingers) as two fingers move apart or together. */
function listenToPinch(box, isOn, zoom) {
  let before = null; // distance of the fingers
  box.addEventListener("touchmove", (event) => {
    if (event.touches.length !== 2 || !isOn()) return;
    event.preventDefault();
    const [a, b] = event.touches;
    const distance = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    if (before) zoom(distance / before, { clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 });
    before = distance;
  }, { passive: false });
  for (const name of ["touchend", "touchcancel"]) box.addEventListener(name, () => (before = null));
}

/** Drag the content of a stage with the mouse. stage.wasDragged keeps the click after it from pinning. */
function listenToDrag(stage, isOn) {
  const { box } = stage;
  let start = null;
  box.addEventListener("pointerdown", (event) => {
    stage.wasDragged = false;
    if (event.pointerType === "mouse" && event.button === 0 && isOn()) start = [event.clientX + box.scrollLeft, event.clientY + box.scrollTop, event.clientX, event.clientY];
  });
  box.addEventListener("pointermove", (event) => {
    if (!start) return;
    if (!event.buttons) start = null;
    else if (stage.wasDragged || Math.hypot(event.clientX - start[2], event.clientY - start[3]) > DRAG_PIXELS) {
      if (!stage.wasDragged) box.setPointerCapture(event.pointerId);
      stage.wasDragged = true;
      [box.scrollLeft, box.scrollTop] = [start[0] - event.clientX, start[1] - event.clientY];
    }
  });
  box.addEventListener("pointerup", () => (start = null));
}
