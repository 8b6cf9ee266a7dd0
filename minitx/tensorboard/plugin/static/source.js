// Where the data comes from: TensorBoard's server, or the HTML file that the viewer stands in. Both offer the same.
//
//   runs()                              → {runs: [name], own_text: "" or why there is none, note}
//   run(name)                           → {steps, checkpoints, newest: header, fault}
//   scores(run, name)                   → {steps, values: [[number or null, …] or null], chance: [number or null]}
//   snapshot(run, step, probe, heads)   → a parsed snapshot with that probe alone
//   ownText(run, step, text, tell)      → the same of a text of the user's own; null where there is no server
//   page(run, step, probe, link, text, tell)
//                                       → a self-contained HTML file, as a Blob; null where there is no server
//
// `tell` is called with a sentence where a text has to wait for its turn.
//
// What cannot be had throws an Error whose message is one sentence.

import { parseSnapshot } from "./snapshot.js";

const MOST_KEPT = 400;
const [BUSY, MOST_TURNS, TURN_MILLISECONDS] = [503, 100, 1000];
const OWN_HEADERS = { "Content-Type": "application/json", "X-Minitx": "1" };

/** The source that asks the routes of minitx/board_plugin/plugin.py. */
export function serverSource() {
  const kept = new Map();

  const address = (route, values) => `./${route}?${new URLSearchParams(values)}`;

  async function ask(url, options) {
    let response;
    try {
      response = await fetch(url, options);
    } catch {
      throw new Error("TensorBoard does not answer: it was stopped, or the connection is gone.");
    }
    if (!response.ok) {
      const said = await response.json().catch(() => ({}));
      const sentence = said.error ?? `TensorBoard answered with ${response.status}.`;
      throw Object.assign(new Error(sentence), { status: response.status });
    }
    return response;
  }

  /** Have a text run; one is run at a time, so where the server is busy with another it is asked again and again. */
  async function askOwn(asked, tell) {
    const options = { method: "POST", headers: OWN_HEADERS, body: JSON.stringify(asked) };
    for (let turn = 1; ; turn++) {
      try {
        return await ask("./own_text", options);
      } catch (error) {
        if (error.status !== BUSY || turn === MOST_TURNS) throw error;
      }
      tell("Another text is being run; yours comes after it …");
      await new Promise((resolve) => setTimeout(resolve, TURN_MILLISECONDS));
    }
  }

  /** `make()` once for each key; the oldest are forgotten, failures at once. */
  function once(key, make) {
    if (kept.has(key)) return kept.get(key);
    const made = make();
    kept.set(key, made);
    made.catch(() => kept.delete(key));
    if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
    return made;
  }

  const parsed = async (response) => parseSnapshot(await (await response).arrayBuffer());

  const scoresSoFar = new Map();

  return {
    isLive: true,
    runs: async () => (await ask("./runs")).json(),
    run: async (run) => (await ask(address("run", { run }))).json(),
    async scores(run, name, steps) {
      const key = `${run}\u0000${name}`;
      let known = scoresSoFar.get(key) ?? { steps: [], values: [], chance: [] };
      const isStart = known.steps.every((step, index) => step === steps[index]);
      if (!isStart) known = { steps: [], values: [], chance: [] }; // the run was resumed from an earlier step
      if (known.steps.length < steps.length) {
        const after = known.steps.at(-1) ?? -1;
        const more = await (await ask(address("scores", { run, name, after }))).json();
        known = {
          steps: [...known.steps, ...more.steps],
          values: [...known.values, ...more.values],
          chance: [...known.chance, ...more.chance],
        };
        scoresSoFar.set(key, known);
      }
      return known;
    },
    snapshot: (run, step, probe, heads) => {
      const url = address("snapshot", { run, step, probe, heads: heads.join(",") });
      return once(url, () => parsed(ask(url)));
    },
    ownText: (run, step, text, tell) => {
      const asked = { run, step, text };
      return once(`own ${JSON.stringify(asked)}`, () => parsed(askOwn(asked, tell)));
    },
    page: async (run, step, probe, link, text, tell) => {
      if (probe >= 0) return (await ask(address("page", { run, step, probe, view: link }))).blob();
      return (await askOwn({ run, step, text, page: true, view: link }, tell)).blob();
    },
    /** Forget snapshots, for steps may have been written again. */
    forget: () => kept.clear(),
  };
}

/** The source that has everything in hand: {title, snapshots: [base64]} of one run. */
export function fileSource(data) {
  const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer;
  const snapshots = data.snapshots.map((text) => parseSnapshot(bytes(text)));
  const byStep = new Map(snapshots.map((snapshot) => [snapshot.step, snapshot]));
  const steps = [...byStep.keys()].sort((a, b) => a - b);
  return {
    isLive: false,
    runs: async () => ({ runs: [data.title], own_text: "A file runs no model.", note: "" }),
    run: async () => ({ steps, checkpoints: [], newest: byStep.get(steps.at(-1)) ?? null, fault: "" }),
    scores: async (run, name) => ({
      steps,
      values: steps.map((step) => byStep.get(step).scores[name] ?? null),
      chance: steps.map((step) => byStep.get(step).chance[name] ?? null),
    }),
    snapshot: async (run, step, probe) => {
      const found = byStep.get(step);
      if (!found?.probes[probe]) throw new Error(`This file has no step ${step} of probe ${probe}.`);
      return { ...found, probes: [found.probes[probe]] };
    },
    ownText: null,
    page: null,
    forget: () => {},
  };
}
