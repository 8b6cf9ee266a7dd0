// The entry of the worker that runs a page's model: it gets the model first, then questions.

import { createAnswers } from "./answering.js";

let answers = null;
self.onmessage = ({ data: { model, id, name, given } }) => {
  if (model) return void (answers = createAnswers(model));
  try {
    self.postMessage({ id, answer: answers[name](...given) });
  } catch (error) {
    self.postMessage({ id, fault: error.message });
  }
};
