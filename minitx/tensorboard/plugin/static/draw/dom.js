// Helpers that touch the document. Texts become text nodes, never markup.

/** A new element. An attribute named "on…" is a listener; true makes a bare attribute, false and null make none. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** A sentence that tells what to click: it is for the screen alone, and no picture of the view has it. */
export function onScreen(sentence) {
  return element("span", { "data-screen": true }, sentence);
}

/** Fill a <select> with `options`, {value, label, title?, disabled?, group?}, but only if they have changed. */
export function fillSelect(select, options, chosen) {
  const wanted = options.map((option) => `${option.value}\u0000${option.label}\u0000${option.group ?? ""}`).join("\u0001");
  if (select.filledWith !== wanted) {
    const groups = new Map();
    select.replaceChildren();
    for (const { value, label, title, disabled, group } of options) {
      if (group && !groups.has(group)) groups.set(group, element("optgroup", { label: group }));
      if (group) select.append(groups.get(group));
      (groups.get(group) ?? select).append(element("option", { value, title, disabled }, label));
    }
    select.filledWith = wanted;
  }
  if (select.value !== String(chosen)) select.value = String(chosen);
}

/** Size a canvas in CSS pixels, sharp on every screen; returns its cleared context. */
export function fitCanvas(canvas, width, height) {
  const ratio = Math.min(window.devicePixelRatio || 1, 3);
  const [w, h] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== w || canvas.height !== h) {
    canvas.width = w;
    canvas.height = h;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

/** Paint a canvas of a size in CSS pixels; `paint(context)` is kept, so that an export can paint it again. */
export function paintCanvas(canvas, width, height, paint) {
  canvas.paint = paint;
  paint(fitCanvas(canvas, width, height));
}

/** Let the browser save `blob` as a file called `name`. */
export function download(blob, name) {
  const address = URL.createObjectURL(blob);
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}
