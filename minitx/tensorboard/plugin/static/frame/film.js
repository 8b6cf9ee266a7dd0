// Films Play: the view at every step, or at evenly chosen ones, as a GIF.

import { createGif } from "../data/gif.js";
import { asPixels } from "./export.js";

const MAX_FRAMES = 60;
const MAX_WIDTH = 1280;
const [LONGEST, SHORTEST, WHOLE, LAST] = [50, 10, 1200, 250]; // centiseconds

/**
 * A GIF, as a Blob, of the pictures at `steps`; null once `isStopped()`. `goTo(step)` resolves when a step is drawn,
 * `picture(body)` gives its picture, and `tell(step)` hears of each.
 */
export async function film(steps, { goTo, picture, tell, isStopped }) {
  const chosen = evenly(steps, MAX_FRAMES);
  const pause = Math.round(Math.min(LONGEST, Math.max(SHORTEST, WHOLE / chosen.length)));
  let [gif, size, body] = [null, null, null];
  for (const [at, step] of chosen.entries()) {
    tell(step);
    await goTo(step);
    if (isStopped()) return null;
    const drawn = picture(body);
    body ??= drawn.body;
    const canvas = await asPixels(drawn, Math.min(1, MAX_WIDTH / drawn.width));
    size ??= { width: canvas.width, height: canvas.height };
    gif ??= createGif(size.width, size.height);
    const context = canvas.getContext("2d");
    gif.add(context.getImageData(0, 0, size.width, size.height).data, at === chosen.length - 1 ? LAST : pause);
  }
  return new Blob([gif.bytes()], { type: "image/gif" });
}

/** At most `most` of `all`, evenly apart, with the first and the last. */
export function evenly(all, most) {
  if (all.length <= most) return all;
  return Array.from({ length: most }, (_, at) => all[Math.round((at * (all.length - 1)) / (most - 1))]);
}
