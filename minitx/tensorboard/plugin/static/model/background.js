// Runs a page's model in a worker, so that the page stays quick; on the page itself where no worker can run.

import { createAnswers } from "./answering.js";

const PAINT_MILLISECONDS = 20;

/** `ask(name, ...given)`: a promise of that answer of `createAnswers(model)`. `script` is that of the worker. */
export function inBackground(model, script) {
  const open = new Map(); // what the worker was asked, by number
  let [worker, count, here] = [new Worker(URL.createObjectURL(new Blob([script], { type: "text/javascript" }))), 0, null];
  worker.postMessage({ model });
  worker.onmessage = ({ data: { id, answer, fault } }) => {
    const { resolve, reject } = open.get(id);
    open.delete(id);
    if (fault === undefined) resolve(answer);
    else reject(new Error(fault));
  };
  worker.onerror = () => {
    worker = null;
    for (const { resolve, name, given } of open.values()) resolve(onPage(name, given));
  };

  /** The answer, after the page has painted, for the model holds it up. */
  async function onPage(name, given) {
    await new Promise((resolve) => setTimeout(resolve, PAINT_MILLISECONDS));
    here ??= createAnswers(model);
    return here[name](...given);
  }

  return (name, ...given) => {
    if (!worker) return onPage(name, given);
    return new Promise((resolve, reject) => {
      open.set(++count, { resolve, reject, name, given });
      worker.postMessage({ id: count, name, given });
    });
  };
}
