// Plays the steps of a run, one after the other.

const [LONGEST_PAUSE, SHORTEST_PAUSE, WHOLE_MILLISECONDS] = [500, 30, 12000];

/** A player of `steps()`. It calls goTo(step), which resolves when the step is drawn, and draw() when it stops. */
export function createPlayer({ steps, currentStep, goTo, draw }) {
  let playback = null; // a new object for every playback, null while paused

  function start() {
    if (steps().length < 2) return undefined;
    const pause = Math.min(LONGEST_PAUSE, Math.max(SHORTEST_PAUSE, WHOLE_MILLISECONDS / steps().length));
    const mine = {};
    playback = mine;
    const next = async () => {
      if (playback !== mine) return undefined; // stopped
      const at = steps().indexOf(currentStep());
      if (at >= steps().length - 1) return stop();
      await goTo(steps()[at + 1]);
      setTimeout(next, pause);
      return undefined;
    };
    setTimeout(next, pause);
    return currentStep() === steps().at(-1) ? goTo(steps()[0]) : draw();
  }

  function stop() {
    if (!playback) return undefined;
    playback = null;
    return draw();
  }

  return { isPlaying: () => Boolean(playback), stop, toggle: () => (playback ? stop() : start()) };
}
