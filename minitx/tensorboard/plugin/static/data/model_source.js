// The source of a page that runs the model itself: a file's snapshot, and answers about any text without a server.

import { look, ranking, without } from "../model/answers.js";
import { createTokenizer } from "../model/tokenizer.js";
import { createModel, embed, throughBlocks, unembed } from "../model/transformer.js";
import { labelsOf, wordStarts } from "../model/words.js";
import { parseSnapshot, writeSnapshot } from "./snapshot.js";
import { fileSource } from "./source.js";

const QUESTIONS = { without, ranking };
const [MAX_CHARACTERS, MAX_KEPT, PAINT_MILLISECONDS] = [4000, 40, 20];

/** The source for `data`, as fileSource takes it with one snapshot, and `model`, as minitx/interop/model_page.py makes it. */
export function modelSource(data) {
  const file = fileSource(data);
  const [model, tokenizer] = [createModel(data.model), createTokenizer(data.model.tokenizer)];
  const kept = new Map();

  /** {tokens: those that the context has room for, dropped: how many it has not}. */
  function encode(text) {
    if (text.length > MAX_CHARACTERS) throw new Error(`The text has ${text.length} characters, but at most ${MAX_CHARACTERS} are run.`);
    const all = tokenizer.encode(text);
    if (!all.length) throw new Error("The text has no token: type a sentence.");
    const tokens = all.slice(0, model.config.context_length);
    return { tokens, dropped: all.length - tokens.length };
  }

  /** `make()`, after the page has painted, for the model holds it up; kept by `key`. */
  function once(key, make) {
    if (!kept.has(key)) kept.set(key, new Promise((resolve) => setTimeout(resolve, PAINT_MILLISECONDS)).then(make));
    if (kept.size > MAX_KEPT) kept.delete(kept.keys().next().value);
    return kept.get(key);
  }

  /** The snapshot of a text. Scores and roles of heads are those of the file: on validation text. */
  async function snapshotOf(text) {
    const { tokens, dropped } = encode(text);
    const { patterns, predictions } = look(model, tokenizer, tokens);
    const { step, layers, heads, scores, chance, roles, scored_on } = (await file.run()).newest;
    const probe = { text, tokens: labelsOf(tokenizer, tokens), words: wordStarts(tokenizer, tokens), dropped, predictions };
    return parseSnapshot(await writeSnapshot({ step, layers, heads, scores, chance, roles, scored_on, probes: [probe] }, patterns));
  }

  const ask = (text, question, fields) => QUESTIONS[question](model, tokenizer, encode(text).tokens, fields);

  return {
    ...file,
    runs: async () => ({ ...(await file.runs()), own_text: "" }),
    run: async (run) => {
      const info = await file.run(run);
      return { ...info, checkpoints: info.steps };
    },
    ownText: (run, step, text) => once(text, () => snapshotOf(text)),
    ask: async (run, step, text, question, fields) => {
      if (!QUESTIONS[question]) throw new Error("This page has no answer to that: open the run in TensorBoard.");
      return once(JSON.stringify([text, question, fields]), () => ask(text, question, fields));
    },
    /** For the browser's console, and for tests against Python. */
    inside: {
      tokens(text) {
        const tokens = tokenizer.encode(text);
        return [tokens, labelsOf(tokenizer, tokens), wordStarts(tokenizer, tokens)];
      },
      logits: (tokens) => Array.from(unembed(model, throughBlocks(model, embed(model, tokens)))),
      async patterns(text) {
        const { count, probes } = await snapshotOf(text);
        return Array.from({ length: count }, (_, head) => Array.from(probes[0].whole(head)));
      },
      ask,
    },
  };
}
