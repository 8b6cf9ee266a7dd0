// The two sources of data: TensorBoard's server, and a self-contained HTML file. Both have the same methods.
//
//   runs()                              → {runs: [name], newest: name or null, own_text: "" or why own texts are refused, note}
//   run(name)                           → {steps, checkpoints, newest: header, fault}
//   scores(run, name, steps, probe)     → {steps, values: [[number or null, …] or null], chance: [number or null]}; of the
//                                         validation text, or of one probe unless that is null
//   attention(run, probe, question, steps)
//                                       → {steps, values, isAll}: the weight of a question (state/question.js) for every
//                                         head; more steps at the next call unless isAll
//   snapshot(run, step, probe, heads)   → a parsed snapshot with that probe alone
//   examples(run, step, head)           → the answer of the route /examples, which names its step; null in a file
//   ownText(run, step, text, tell)      → the same for the user's own text; null without a server
//   ask(run, step, text, question, fields, tell)
//                                       → the answer of the weights of a step to a question about a text; null without a
//                                         server
//   page(run, step, probe, link, text, tell)
//                                       → a self-contained HTML file, as a Blob; null without a server
//
// `tell` is called with a sentence if a text has to wait for its turn. Failures throw an Error whose message is one
// sentence.

import { attentionOfHeads } from "./attention.js";
import { parseSnapshot } from "./snapshot.js";

const [MAX_KEPT, MAX_ROWS] = [400, 40];
const [BUSY, MAX_TURNS, TURN_MILLISECONDS] = [503, 100, 1000];
const OWN_HEADERS = { "Content-Type": "application/json", "X-Minitx": "1" };

/** The source that fetches from the routes of minitx/tensorboard/plugin/plugin.py. */
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
      const answer = await response.json().catch(() => ({}));
      const sentence = answer.error ?? `TensorBoard answered with ${response.status}.`;
      throw Object.assign(new Error(sentence), { status: response.status });
    }
    return response;
  }

  /** Have a text run. The server runs one at a time; while it is busy, ask again every second. */
  async function askModel(request, tell, route = "own_text") {
    const options = { method: "POST", headers: OWN_HEADERS, body: JSON.stringify(request) };
    for (let turn = 1; ; turn++) {
      try {
        return await ask(`./${route}`, options);
      } catch (error) {
        if (error.status !== BUSY || turn === MAX_TURNS) throw error;
      }
      tell("Another text is being run; yours comes after it …");
      await new Promise((resolve) => setTimeout(resolve, TURN_MILLISECONDS));
    }
  }

  /** The result of `make()`, kept by its key. The oldest results are dropped, failures at once. */
  function once(key, make) {
    if (kept.has(key)) return kept.get(key);
    const made = make();
    kept.set(key, made);
    made.catch(() => kept.delete(key));
    if (kept.size > MAX_KEPT) kept.delete(kept.keys().next().value);
    return made;
  }

  const parsed = async (response) => parseSnapshot(await (await response).arrayBuffer());

  const rows = new Map();

  /** The rows of a route for `steps`: those that are kept, and where later ones are missing, more of them. */
  async function extended(route, values, steps) {
    const key = JSON.stringify([route, values]);
    const none = { steps: [], values: [], chance: [], isAll: true };
    let known = rows.get(key) ?? none;
    if (!known.steps.every((step, index) => step === steps[index])) known = none; // resumed from an earlier step
    if (known.steps.length < steps.length) {
      const more = await (await ask(address(route, { ...values, after: known.steps.at(-1) ?? -1 }))).json();
      const joined = (name) => [...known[name], ...(more[name] ?? [])];
      known = { steps: joined("steps"), values: joined("values"), chance: joined("chance"), isAll: more.isAll ?? true };
      rows.delete(key);
      rows.set(key, known);
      if (rows.size > MAX_ROWS) rows.delete(rows.keys().next().value);
    }
    return known;
  }

  return {
    isLive: true,
    runs: async () => (await ask("./runs")).json(),
    run: async (run) => (await ask(address("run", { run }))).json(),
    scores: (run, name, steps, probe = null) => {
      const values = { run, name, ...(probe === null ? {} : { probe }) };
      return extended("scores", values, steps);
    },
    attention: (run, probe, { query, key, isOfWords }, steps) => {
      const to = key ? { key: key.join("-") } : isOfWords ? { units: "words" } : {};
      return extended("attention", { run, probe, query: query.join("-"), ...to }, steps);
    },
    snapshot: (run, step, probe, heads) => {
      const url = address("snapshot", { run, step, probe, heads: heads.join(",") });
      return once(url, () => parsed(ask(url)));
    },
    examples: (run, step, head) => {
      const url = address("examples", { run, step, head });
      return once(url, async () => (await ask(url)).json());
    },
    ownText: (run, step, text, tell) => {
      const request = { run, step, text };
      return once(`own ${JSON.stringify(request)}`, () => parsed(askModel(request, tell)));
    },
    ask: (run, step, text, question, fields, tell) => {
      const request = { ...fields, run, step, text, question };
      return once(`ask ${JSON.stringify(request)}`, async () => (await askModel(request, tell, "ask")).json());
    },
    page: async (run, step, probe, link, text, tell) => {
      if (probe >= 0) return (await ask(address("page", { run, step, probe, view: link }))).blob();
      return (await askModel({ run, step, text, page: true, view: link }, tell)).blob();
    },
    /** Drop what is kept, because steps may have been written again. */
    forget: () => [kept, rows].forEach((one) => one.clear()),
  };
}

/** The source for `data`, {title, snapshots: [base64], steps_of} of one run; `steps_of` counts all its steps. */
export function fileSource(data) {
  const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer;
  const snapshots = data.snapshots.map((text) => parseSnapshot(bytes(text)));
  const byStep = new Map(snapshots.map((snapshot) => [snapshot.step, snapshot]));
  const steps = [...byStep.keys()].sort((a, b) => a - b);
  return {
    isLive: false,
    runs: async () => ({ runs: [data.title], newest: data.title, own_text: "A file runs no model.", note: "" }),
    run: async () => ({ steps, checkpoints: [], newest: byStep.get(steps.at(-1)) ?? null, fault: "", steps_of: data.steps_of ?? steps.length }),
    scores: async (run, name, _, probe = null) => {
      const scored = (step) => (probe === null ? byStep.get(step) : byStep.get(step).probes[probe]);
      return { steps, values: steps.map((step) => scored(step)?.scores[name] ?? null), chance: steps.map((step) => scored(step)?.chance[name] ?? null) };
    },
    attention: async (run, probe, question) => {
      const only = (step) => ({ ...byStep.get(step), probes: [byStep.get(step).probes[probe]] });
      return { steps, values: steps.map((step) => (only(step).probes[0] ? attentionOfHeads(only(step), question) : null)), isAll: true };
    },
    snapshot: async (run, step, probe) => {
      const snapshot = byStep.get(step);
      if (!snapshot?.probes[probe]) throw new Error(`This file has no step ${step} of probe ${probe}.`);
      return { ...snapshot, probes: [snapshot.probes[probe]] };
    },
    examples: null,
    ownText: null,
    ask: null,
    page: null,
    forget: () => {},
  };
}
