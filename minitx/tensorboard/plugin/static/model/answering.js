// All that a page asks its model about a text, as plain data: the same in a worker and on the page.

import { look, ranking, without } from "./answers.js";
import { createTokenizer } from "./tokenizer.js";
import { createModel, embed, throughBlocks, unembed } from "./transformer.js";
import { labelsOf, wordStarts } from "./words.js";

const QUESTIONS = { without, ranking };
const LACKING = { writes: "what a head writes", blocks: "a layer as blocks" };
const MAX_CHARACTERS = 4000;

/** The answers of the model `data`, as minitx/interop/model_page.py makes it, by name. */
export function createAnswers(data) {
  const [model, tokenizer] = [createModel(data), createTokenizer(data.tokenizer)];

  /** {tokens: those that the context has room for, dropped: how many it has not}. */
  function encode(text) {
    if (text.length > MAX_CHARACTERS) throw new Error(`The text has ${text.length} characters, but at most ${MAX_CHARACTERS} are run.`);
    const all = tokenizer.encode(text);
    if (!all.length) throw new Error("The text has no token: type a sentence.");
    const tokens = all.slice(0, model.config.context_length);
    return { tokens, dropped: all.length - tokens.length };
  }

  return {
    /** {probe: without its predictions, patterns, predictions}. */
    look(text) {
      const { tokens, dropped } = encode(text);
      const probe = { text, tokens: labelsOf(tokenizer, tokens), words: wordStarts(tokenizer, tokens), dropped };
      return { probe, ...look(model, tokenizer, tokens) };
    },
    ask(text, question, fields) {
      if (!QUESTIONS[question]) throw new Error(`This page does not show ${LACKING[question] ?? question}: open the run in TensorBoard.`);
      return QUESTIONS[question](model, tokenizer, encode(text).tokens, fields);
    },
    tokens(text) {
      const tokens = tokenizer.encode(text);
      return [tokens, labelsOf(tokenizer, tokens), wordStarts(tokenizer, tokens)];
    },
    logits: (tokens) => Array.from(unembed(model, throughBlocks(model, embed(model, tokens)))),
  };
}
