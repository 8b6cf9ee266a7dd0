// The colour scales of patterns. The page's other colours are variables in style.css.

/** Weight 0 to 1, on white and on black. Lightness alone tells the order, so the scale survives printing in grey. */
const RAMPS = {
  light: ["#f4f6fb", "#d3e0f2", "#93b8e0", "#4a86c8", "#1f559f", "#0b2a5e"],
  dark: ["#171a21", "#33245e", "#76307f", "#c04a70", "#f28c4e", "#fdeaa6"],
};
/** Less in the second pattern, equal, more in the second. */
const DIVERGING = {
  light: ["#8c3a04", "#e08a3c", "#f4f6fb", "#4a93c8", "#0b3f7a"],
  dark: ["#ffb15e", "#a8571a", "#171a21", "#2a6fb0", "#8fd0ff"],
};
/** One for each head; most colour-blind people can tell them apart (after Okabe and Ito 2008, and Tol). */
const HEADS = {
  light: ["#0072b2", "#d55e00", "#009e73", "#aa3377", "#b8860b", "#4b56d2", "#66a61e", "#7f4f24", "#008b9a", "#cc3d6d", "#5b6770", "#8e44ad"],
  dark: ["#56b4e9", "#ff8c42", "#2fd3a0", "#ee77bb", "#f0d043", "#9aa5ff", "#a6d854", "#d8a47f", "#5ad7e8", "#ff7f9f", "#b8c4ce", "#c792ea"],
};

/** The colours and the font for the drawing functions, read from the style of `root`. */
export function readTheme(root) {
  const style = getComputedStyle(root);
  const read = (name) => style.getPropertyValue(`--${name}`).trim();
  const kind = read("kind") === "dark" ? "dark" : "light";
  return {
    kind,
    ink: read("ink"),
    muted: read("muted"),
    line: read("line"),
    panel: read("panel"),
    accent: read("accent"),
    mark: read("mark"),
    ramp: table(RAMPS[kind]),
    diverging: table(DIVERGING[kind]),
    heads: HEADS[kind],
    font: "12px Roboto, 'Segoe UI', system-ui, sans-serif",
  };
}

/** The colour of a head. Layers use the same colours, shifted, so that head h differs from layer to layer. */
export function headColour(theme, head, headsPerLayer) {
  const layer = Math.floor(head / headsPerLayer);
  return theme.heads[((head % headsPerLayer) + layer * 5) % theme.heads.length];
}

/** 256 colours as RGBA values, evenly along the stops. */
function table(stops) {
  const colours = stops.map((stop) => [1, 3, 5].map((at) => parseInt(stop.slice(at, at + 2), 16)));
  const rgba = new Uint8ClampedArray(256 * 4);
  for (let level = 0; level < 256; level++) {
    const place = (level / 255) * (colours.length - 1);
    const below = Math.min(Math.floor(place), colours.length - 2);
    for (let channel = 0; channel < 3; channel++) {
      const [from, to] = [colours[below][channel], colours[below + 1][channel]];
      rgba[level * 4 + channel] = from + (to - from) * (place - below);
    }
    rgba[level * 4 + 3] = 255;
  }
  return rgba;
}

/** A colour of a table as CSS, and whether dark letters stand out on it. */
export function tableColour(rgba, level) {
  const [r, g, b] = rgba.slice(level * 4, level * 4 + 3);
  return { css: `rgb(${r} ${g} ${b})`, isLight: 0.3 * r + 0.59 * g + 0.11 * b > 140 };
}
