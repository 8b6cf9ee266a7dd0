// What a comparison opens with.

const MOST_ASKED = 10; // runs

/** The first other run that can show the text on view, as it newly stands; where none can, the run's own first step. */
export async function firstOther(source, { runs, run, info, probe, first }) {
  const text = first?.probes[0].text;
  for (const name of runs.filter((one) => one !== run).slice(0, MOST_ASKED)) {
    const other = await source.run(name).catch(() => null);
    const isShown = probe < 0 ? other?.checkpoints.length : other?.newest?.probes.some((one) => one.text === text);
    if (isShown) return { run: name, step: null, head: null };
  }
  return { run: null, step: info?.steps[0] ?? null, head: null };
}
