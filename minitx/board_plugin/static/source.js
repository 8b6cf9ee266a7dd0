// Where the data comes from: TensorBoard's server, or the HTML file that the viewer stands in. Both offer the same.
//
//   runs()                              → {runs: [name], own_text: "" or why there is none, note}
//   run(name)                           → {steps, checkpoints, newest: header, fault}
//   scores(run, name)                   → {steps, values: [[number or null, …] or null], chance: [number or null]}
//   snapshot(run, step, probe, heads)   → a parsed snapshot with that probe alone
//   ownText(run, step, text)            → the same of a text of the user's own
//   page(run, step, probe, link, text)  → a self-contained HTML file, as a Blob; null where there is no server
//
// What cannot be had throws an Error whose message is one sentence.

import { parseSnapshot } from "./snapshot.js";

const MOST_KEPT = 400;
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
      throw new Error(said.error ?? `TensorBoard answered with ${response.status}.`);
    }
    return response;
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

  const binary = async (url, options) => parseSnapshot(await (await ask(url, options)).arrayBuffer());

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
      return once(url, () => binary(url));
    },
    ownText: (run, step, text) => {
      const body = JSON.stringify({ run, step, text });
      return once(`own ${body}`, () => binary("./own_text", { method: "POST", headers: OWN_HEADERS, body }));
    },
    page: async (run, step, probe, link, text) => {
      if (probe >= 0) return (await ask(address("page", { run, step, probe, view: link }))).blob();
      const body = JSON.stringify({ run, step, text, page: true, view: link });
      return (await ask("./own_text", { method: "POST", headers: OWN_HEADERS, body })).blob();
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
