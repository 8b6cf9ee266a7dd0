// The few helpers that touch the document. Texts become text nodes, never markup.

/** A new element; attributes whose names begin with "on" are listeners, true is a bare attribute, false and null none. */
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

/** Make a <select> hold `options` ({value, label, title and disabled or none}), touching it only where they changed. */
export function fillSelect(select, options, chosen) {
  const wanted = options.map((option) => `${option.value}\u0000${option.label}`).join("\u0001");
  if (select.filledWith !== wanted) {
    select.replaceChildren(...options.map((option) => element("option", { value: option.value, title: option.title, disabled: option.disabled }, option.label)));
    select.filledWith = wanted;
  }
  if (select.value !== String(chosen)) select.value = String(chosen);
}

/** Size a canvas in CSS pixels, sharp on every screen, and return its cleared context. */
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

/** Let the browser save `blob` as a file called `name`. */
export function download(blob, name) {
  const address = URL.createObjectURL(blob);
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}
