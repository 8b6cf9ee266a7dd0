// The source of a page that runs the model itself: a file's snapshot, and answers about any text without a server.

import { inBackground } from "../model/background.js";
import { parseSnapshot, writeSnapshot } from "./snapshot.js";
import { fileSource } from "./source.js";

const MAX_KEPT = 40;

/** The source for `data`, as fileSource takes it with one snapshot, `model` and the script `worker` that runs it. */
export function modelSource(data) {
  const file = fileSource(data);
  const ofModel = inBackground(data.model, data.worker);
  const kept = new Map();

  /** `make()`, kept by `key`. */
  function once(key, make) {
    if (!kept.has(key)) kept.set(key, make());
    if (kept.size > MAX_KEPT) kept.delete(kept.keys().next().value);
    return kept.get(key);
  }

  /** The snapshot of a text. Scores and roles of heads are those of the file: on validation text. */
  async function snapshotOf(text) {
    const { probe, patterns, predictions } = await ofModel("look", text);
    const { step, layers, heads, scores, chance, roles, scored_on } = (await file.run()).newest;
    const probes = [{ ...probe, predictions }];
    return parseSnapshot(await writeSnapshot({ step, layers, heads, scores, chance, roles, scored_on, probes }, patterns));
  }

  return {
    ...file,
    runs: async () => ({ ...(await file.runs()), own_text: "" }),
    run: async (run) => {
      const info = await file.run(run);
      return { ...info, checkpoints: info.steps };
    },
    ownText: (run, step, text) => once(text, () => snapshotOf(text)),
    ask: (run, step, text, question, fields) =>
      once(JSON.stringify([text, question, fields]), () => ofModel("ask", text, question, fields)),
    /** For the browser's console, and for tests against Python: promises. */
    inside: {
      tokens: (text) => ofModel("tokens", text),
      logits: (tokens) => ofModel("logits", tokens),
      async patterns(text) {
        const { count, probes } = await snapshotOf(text);
        return Array.from({ length: count }, (_, head) => Array.from(probes[0].whole(head)));
      },
      ask: (text, question, fields) => ofModel("ask", text, question, fields),
    },
  };
}
