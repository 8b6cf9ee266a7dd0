// Writes a film as a GIF (CompuServe's GIF89a): one palette for all frames, and of each frame only what has changed.
//
// Colours are counted in 32 steps a channel, and a colour of the palette is the mean of those it stands for. The most
// frequent keep a place of their own, as a page has few and large areas; median cut (Heckbert 1982) divides the others.

const [STEPS, OWN_PLACES, CLEAR_COLOUR] = [32 ** 3, 64, 255];
const SAME = 0x8000; // marks a pixel that is as in the frame before
const [MIN_BITS, MAX_CODE] = [8, 4096];

/** A film of width × height pixels: add(pixels, centiseconds) takes RGBA bytes of its own, bytes() ends it as a Uint8Array. */
export function createGif(width, height) {
  const sums = new Float64Array(STEPS * 4); // of each colour: red, green, blue, how many
  const frames = [];
  let before = null;
  return {
    add(pixels, centiseconds) {
      const now = new Uint32Array(pixels.buffer);
      frames.push({ ...changedPart(now, before, width, height, sums), centiseconds });
      before = now;
    },
    bytes() {
      const { palette, places } = paletteOf(sums);
      const out = [...ascii("GIF89a"), ...two(width), ...two(height), 0xf7, 0, 0, ...palette];
      out.push(0x21, 0xff, 11, ...ascii("NETSCAPE2.0"), 3, 1, 0, 0, 0); // again and again
      const parts = [Uint8Array.from(out), ...frames.flatMap((frame) => frameBytes(frame, places)), Uint8Array.of(0x3b)];
      const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
      let at = 0;
      for (const part of parts) {
        all.set(part, at);
        at += part.length;
      }
      return all;
    },
  };
}

const ascii = (text) => Array.from(text, (letter) => letter.charCodeAt(0));
const two = (number) => [number & 255, number >> 8];

/** The rectangle that differs from the frame before, {x, y, width, height, colours}; counts its colours in `sums`. */
function changedPart(now, before, width, height, sums) {
  let [left, right, top, bottom] = [width, -1, height, -1];
  for (let at = 0; at < now.length; at++) {
    if (before && now[at] === before[at]) continue;
    const x = at % width;
    if (x < left) left = x;
    if (x > right) right = x;
    bottom = (at / width) | 0;
    if (top > bottom) top = bottom;
  }
  if (right < 0) [left, right, top, bottom] = [0, 0, 0, 0]; // a frame has at least one pixel
  const part = { x: left, y: top, width: right - left + 1, height: bottom - top + 1 };
  const colours = new Uint16Array(part.width * part.height);
  for (let row = 0, into = 0; row < part.height; row++) {
    for (let at = (top + row) * width + left, end = at + part.width; at < end; at++, into++) {
      colours[into] = before && now[at] === before[at] ? SAME : count(now[at], sums);
    }
  }
  return { ...part, colours };
}

/** The place of a colour, little-endian RGBA, among the counted ones. */
function count(pixel, sums) {
  const [red, green, blue] = [pixel & 255, (pixel >> 8) & 255, (pixel >> 16) & 255];
  const colour = ((red >> 3) << 10) | ((green >> 3) << 5) | (blue >> 3);
  sums[colour * 4] += red;
  sums[colour * 4 + 1] += green;
  sums[colour * 4 + 2] += blue;
  sums[colour * 4 + 3]++;
  return colour;
}

/** {palette: 768 bytes, places: the palette's place of every counted colour}. */
function paletteOf(sums) {
  const used = Array.from({ length: STEPS }, (_, colour) => colour).filter((colour) => sums[colour * 4 + 3]);
  used.sort((a, b) => sums[b * 4 + 3] - sums[a * 4 + 3]);
  const groups = [...used.slice(0, OWN_PLACES).map((colour) => [colour]), ...medianCut(used.slice(OWN_PLACES), sums, CLEAR_COLOUR - OWN_PLACES)];
  const [palette, places] = [new Uint8Array(256 * 3), new Uint8Array(STEPS)];
  for (const [place, group] of groups.entries()) {
    for (const colour of group) places[colour] = place;
    for (let channel = 0; channel < 3; channel++) {
      const [sum, weight] = [channel, 3].map((part) => group.reduce((total, colour) => total + sums[colour * 4 + part], 0));
      palette[place * 3 + channel] = Math.round(sum / weight);
    }
  }
  return { palette, places };
}

/** Colours in at most `most` groups: again and again the group that is widest for its pixels is cut at its median. */
function medianCut(colours, sums, most) {
  const groups = colours.length ? [measured(colours, sums)] : [];
  while (groups.length < most) {
    const widest = groups.reduce((best, group) => (group.spread > best.spread ? group : best), { spread: 0 });
    if (!widest.spread) break;
    const sorted = widest.colours.sort((a, b) => valueOf(a, widest.channel) - valueOf(b, widest.channel));
    let [half, at] = [widest.pixels / 2, 0];
    while (at < sorted.length - 2 && (half -= sums[sorted[at] * 4 + 3]) > 0) at++;
    groups[groups.indexOf(widest)] = measured(sorted.slice(0, at + 1), sums);
    groups.push(measured(sorted.slice(at + 1), sums));
  }
  return groups.map((group) => group.colours);
}

const valueOf = (colour, channel) => (colour >> (10 - 5 * channel)) & 31;

/** A group of colours with its widest channel. */
function measured(colours, sums) {
  const ranges = [0, 1, 2].map((channel) => {
    let [least, most] = [31, 0];
    for (const colour of colours) {
      const value = valueOf(colour, channel);
      if (value < least) least = value;
      if (value > most) most = value;
    }
    return most - least;
  });
  const range = Math.max(...ranges);
  const pixels = colours.reduce((sum, colour) => sum + sums[colour * 4 + 3], 0);
  return { colours, channel: ranges.indexOf(range), pixels, spread: range * Math.sqrt(pixels) };
}

/** A frame as bytes: how long it is shown, where it lies, and its pixels. */
function frameBytes({ x, y, width, height, colours, centiseconds }, places) {
  const control = [0x21, 0xf9, 4, 0x05, ...two(centiseconds), CLEAR_COLOUR, 0]; // stays under the next; one colour is clear
  const head = Uint8Array.from([...control, 0x2c, ...two(x), ...two(y), ...two(width), ...two(height), 0, MIN_BITS]);
  return [head, packed(colours, places)];
}

/** Pixels in the variable-length codes of LZW (Welch 1984), in blocks of up to 255 bytes. */
function packed(colours, places) {
  const [clear, end] = [1 << MIN_BITS, (1 << MIN_BITS) + 1];
  const table = new Uint16Array(MAX_CODE << MIN_BITS); // from a code and the next pixel to the code of both
  let bytes = new Uint8Array(1024);
  let [size, block, bits, free] = [0, 0, 0, 0]; // block: where its length stands
  let [next, wide] = [0, 0];
  const put = (byte) => {
    if (size + 3 > bytes.length) {
      const more = new Uint8Array(bytes.length * 2);
      more.set(bytes);
      bytes = more;
    }
    if (size === block) bytes[size++] = 0;
    bytes[size++] = byte;
    if (++bytes[block] === 255) block = size;
  };
  const write = (code) => {
    bits |= code << free;
    for (free += wide; free >= 8; free -= 8, bits >>>= 8) put(bits & 255);
  };
  const reset = () => {
    table.fill(0);
    [next, wide] = [end + 1, MIN_BITS + 1];
  };
  reset();
  write(clear);
  const placeOf = (colour) => (colour === SAME ? CLEAR_COLOUR : places[colour]);
  let code = placeOf(colours[0]);
  for (let at = 1; at < colours.length; at++) {
    const place = placeOf(colours[at]);
    const known = table[(code << MIN_BITS) | place];
    if (known) {
      code = known;
      continue;
    }
    write(code);
    if (next < MAX_CODE) {
      if (next === 1 << wide) wide++;
      table[(code << MIN_BITS) | place] = next++;
    } else {
      write(clear);
      reset();
    }
    code = place;
  }
  write(code);
  if (next === 1 << wide && wide < 12) wide++; // the reader has added a code by now
  write(end);
  if (free) put(bits & 255);
  bytes[size++] = 0; // an empty block ends the frame
  return bytes.subarray(0, size);
}
