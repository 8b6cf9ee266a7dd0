// Shapes of a vector picture (SVG), and a canvas context that makes such shapes instead of pixels.

/** The name under which SVG elements are made, as the browser itself gives it. */
const VECTOR = new DOMParser().parseFromString("<svg></svg>", "text/html").querySelector("svg").namespaceURI;

/** A new SVG element; attributes that are null or undefined are left out. */
export function vector(name, attributes = {}, ...children) {
  const made = document.createElementNS(VECTOR, name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(key, typeof value === "number" ? short(value) : value);
  }
  made.append(...children);
  return made;
}

const short = (value) => String(Math.round(value * 100) / 100);
const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const knownColours = new Map();
let clips = 0; // made so far: each has a name of its own

/** A colour in any notation of CSS as {[name]: "#rrggbb", [name + "-opacity"]}, which every program reads. */
export function paintOf(name, css) {
  if (!knownColours.has(css)) {
    pixel.clearRect(0, 0, 1, 1);
    pixel.fillStyle = css;
    pixel.fillRect(0, 0, 1, 1);
    knownColours.set(css, pixel.getImageData(0, 0, 1, 1).data);
  }
  const [red, green, blue, alpha] = knownColours.get(css);
  const hex = [red, green, blue].map((part) => part.toString(16).padStart(2, "0")).join("");
  return { [name]: alpha ? `#${hex}` : "none", [`${name}-opacity`]: alpha && alpha < 255 ? alpha / 255 : null };
}

/** A font of a canvas, as "bold 12px Roboto", as attributes. */
function fontOf(font) {
  const [, kind, size, family] = /^(.*?)([\d.]+)px (.*)$/.exec(font);
  const weight = /bold|[5-9]00/.exec(kind)?.[0];
  return { "font-family": family, "font-size": Number(size), "font-weight": weight, "font-style": /italic/.exec(kind)?.[0] };
}

/** A picture of `canvas` in a place, with sharp pixels unless it is smooth. */
export function imageOf(canvas, x, y, width, height, isSmooth) {
  const style = isSmooth ? null : "image-rendering: pixelated";
  return vector("image", { x, y, width, height, href: canvas.toDataURL(), preserveAspectRatio: "none", style });
}

/** A context of a canvas that appends shapes to `parent`. It keeps fonts, colours, and the transform as any context does. */
export function vectorContext(parent) {
  const context = document.createElement("canvas").getContext("2d");
  const plain = Object.getPrototypeOf(context);
  const outer = []; // the groups around `target`, one for each saved state
  let [path, target] = ["", parent];
  const transformOf = () => {
    const { a, b, c, d, e, f } = context.getTransform();
    const isPlain = a === 1 && b === 0 && c === 0 && d === 1 && e === 0 && f === 0;
    return isPlain ? null : `matrix(${[a, b, c, d, e, f].map(short).join(" ")})`;
  };
  const add = (name, attributes, ...children) => {
    target.append(vector(name, { ...attributes, transform: transformOf(), opacity: context.globalAlpha < 1 ? context.globalAlpha : null }, ...children));
  };
  const filled = () => paintOf("fill", context.fillStyle);
  const stroked = () => ({
    fill: "none",
    ...paintOf("stroke", context.strokeStyle),
    "stroke-width": context.lineWidth,
    "stroke-linecap": context.lineCap === "butt" ? null : context.lineCap,
    "stroke-dasharray": context.getLineDash().join(" ") || null,
  });
  const go = (letter) => (...numbers) => {
    path += letter + numbers.map(short).join(" ");
  };
  return Object.assign(context, {
    beginPath: () => {
      path = "";
    },
    moveTo: go("M"),
    lineTo: go("L"),
    bezierCurveTo: go("C"),
    quadraticCurveTo: go("Q"),
    closePath: go("Z"),
    rect: (x, y, width, height) => {
      path += `M${short(x)} ${short(y)}h${short(width)}v${short(height)}h${short(-width)}Z`;
    },
    arc: (x, y, radius, start, end) => {
      const at = (angle) => [x + radius * Math.cos(angle), y + radius * Math.sin(angle)];
      const last = Math.min(end, start + 2 * Math.PI - 0.001);
      go(path && !path.endsWith("Z") ? "L" : "M")(...at(start));
      go("A")(radius, radius, 0, Number(last - start > Math.PI), 1, ...at(last));
    },
    save: () => {
      outer.push(target);
      plain.save.call(context);
    },
    restore: () => {
      target = outer.pop() ?? target;
      plain.restore.call(context);
    },
    clip: () => {
      const id = `clip-${++clips}`;
      const inside = vector("g", { "clip-path": `url(#${id})` });
      target.append(vector("clipPath", { id }, vector("path", { d: path, transform: transformOf() })), inside);
      target = inside;
    },
    stroke: () => add("path", { d: path, ...stroked() }),
    fill: () => add("path", { d: path, ...filled() }),
    fillRect: (x, y, width, height) => add("rect", { x, y, width, height, ...filled() }),
    strokeRect: (x, y, width, height) => add("rect", { x, y, width, height, ...stroked() }),
    fillText: (text, x, y) => add("text", { x, y: y + belowBaseline(context), ...textOf(context), ...filled() }, text),
    drawImage: (canvas, ...place) => {
      add("g", {}, imageOf(canvas, ...place, context.imageSmoothingEnabled));
    },
  });
}

function textOf({ font, textAlign }) {
  const anchor = { center: "middle", right: "end", end: "end" }[textAlign];
  return { ...fontOf(font), "text-anchor": anchor, style: "white-space: pre" };
}

/** How far the alphabetic baseline lies below the baseline that the context writes at. */
function belowBaseline(context) {
  const { textBaseline } = context;
  if (textBaseline === "alphabetic") return 0;
  const above = context.measureText("x").fontBoundingBoxAscent;
  context.textBaseline = "alphabetic";
  const all = context.measureText("x").fontBoundingBoxAscent;
  context.textBaseline = textBaseline;
  return all - above;
}
