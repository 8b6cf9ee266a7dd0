// Takes a view away: as a link, as a picture, as a film of all steps, as a self-contained page.

import { READING } from "../data/gather.js";
import { download } from "../draw/dom.js";
import { toLink } from "../state/link.js";
import { viewOf } from "../views/views.js";
import { asPixels, asText, drawPicture } from "./export.js";
import { film } from "./film.js";

const COPIED_MILLISECONDS = 2000;
const PICTURE_RATIO = 2;
const LARGE_FILM = 10e6; // bytes; more is said, for a slide or a mail takes it badly

/**
 * The link to what is shown: where the run lacks what the state names, such as a step, it names what stands in for that.
 * While the data of another run or text is loading (`isBehind`), it names what the state names.
 */
export function linkOf(state, data, isBehind = false) {
  if (isBehind || !data.first) return toLink({ ...state, run: state.run || data.run });
  const step = state.step === null || data.step === data.info.steps.at(-1) ? null : data.step;
  return toLink({ ...state, run: data.run, probe: data.probe, step, score: data.score || state.score, view: viewOf(state.view).name });
}

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

/**
 * The menu Save. `now()` gives {state, data, theme}; change(changes) resolves when they are drawn; tell(note) notes
 * something for as long as it takes, and done(fault, note) says how it ended.
 */
export function createSaving(parts, source, { now, change, tell, done }) {
  let filming = null; // an object for every film, null while there is none
  const picture = (body) => drawPicture({ parts, ...now(), body });

  function nameOf(ending, isFilm = false) {
    const { state, data } = now();
    const words = [data.run, state.view, ...(isFilm ? [] : [`step-${data.firstStep}`])];
    return `${words.join("-").replace(/[^\w.-]+/g, "-")}.${ending}`;
  }

  async function saveFilm() {
    const { state, data } = now();
    const steps = state.probe < 0 && data.probe < 0 ? data.info.checkpoints : data.info.steps;
    const mine = {};
    filming = mine;
    const isStopped = () => filming !== mine;
    const last = steps.at(-1).toLocaleString("en");
    const showStep = (step) => (parts.save.textContent = `■ GIF: step ${step.toLocaleString("en")} of ${last}`);
    parts.save.title = "Stop the GIF";
    try {
      const made = await film(steps, { goTo: (step) => change({ step }), picture, tell: showStep, isStopped });
      if (!made) return "";
      download(made, nameOf("gif", true));
      const megabytes = (made.size / 1e6).toFixed(1);
      return made.size > LARGE_FILM ? `The GIF is large: ${megabytes} MB. A smaller window or a shorter text makes it smaller.` : "";
    } finally {
      filming = null;
      parts.save.textContent = "Save";
      parts.save.title = "";
      await change({ step: state.step });
    }
  }

  async function savePage() {
    const { state, data } = now();
    if (data.probe < 0) tell(READING);
    const view = toLink({ ...state, run: "", probe: 0, text: "", compare: false });
    download(await source.page(data.run, data.firstStep, data.probe, view, state.text, tell), "attention.html");
  }

  const kinds = {
    png: async () => (await asPixels(picture(), PICTURE_RATIO)).toBlob((blob) => download(blob, nameOf("png"))),
    svg: async () => download(new Blob([asText(picture().svg)], { type: "image/svg+xml" }), nameOf("svg")),
    gif: saveFilm,
    html: savePage,
  };

  return {
    /** Open or close the menu; while a film is made, stop it. */
    toggle() {
      if (filming) filming = null;
      else parts.saveMenu.hidden = !parts.saveMenu.hidden;
      parts.save.setAttribute("aria-expanded", String(!parts.saveMenu.hidden));
    },
    async save(kind) {
      parts.saveMenu.hidden = true;
      parts.save.setAttribute("aria-expanded", "false");
      if (!now().data.first) return;
      try {
        done("", (await kinds[kind]()) ?? "");
      } catch (error) {
        done(error.message, "");
      }
    },
  };
}
