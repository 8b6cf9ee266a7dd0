// Asks a live source again and again whether there is more to show.

const POLL_MILLISECONDS = 3000;

/** Load again once runs or steps were added, or after a fault, for as long as `root` is seen. */
export function poll(root, source, { data, isLoading, load, failed }) {
  const mark = (info) => info && [info.steps.length, info.steps.at(-1), info.newest?.written, info.checkpoints.join()].join("|");

  async function look() {
    const { run, runs: known, info: before, fault, isFinal } = data();
    const { runs } = await source.runs();
    const info = run && runs.includes(run) ? await source.run(run) : null;
    const isSame = runs.join("\n") === known.join("\n") && mark(info) === mark(before);
    if (isSame && !(fault && !isFinal)) return;
    if (info && before && !before.steps.every((step, index) => step === info.steps[index])) source.forget();
    await load(true);
  }

  async function again() {
    const isSeen = !document.hidden && window.innerHeight > 0 && root.isConnected;
    if (isSeen && !isLoading()) await look().catch((error) => failed(error.message));
    setTimeout(again, POLL_MILLISECONDS);
  }
  setTimeout(again, POLL_MILLISECONDS);
}
