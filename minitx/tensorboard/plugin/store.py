"""Finds the runs with snapshots under TensorBoard's log folder, and reads their files.

The name of a run is the path of its folder in the log folder. Only names that `Store.names` lists are accepted, and
links are not followed, so nothing outside the log folder can be read.
"""

import os
import time
from contextlib import AbstractContextManager
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from werkzeug.exceptions import NotFound

from minitx.heads import examples_file, snapshots
from minitx.heads.examples_file import Examples
from minitx.system.errors import UserError
from minitx.system.files import steps_in

MAX_FOLDERS, MAX_CACHED_HEADERS, MAX_CACHED_EXAMPLES = 20_000, 4000, 8
FRESH_SECONDS = 1.0  # for which a list of runs is used, so that a burst of requests walks the folders once
UNKNOWN: dict[str, Any] = {"scores": {}, "chance": {}, "probes": []}
WEIGHTS = {"checkpoints": "", "weights": ".safetensors"}
"""Folders of a run with the weights of its steps, and the endings of the names in them."""
NOT_RUNS = frozenset({snapshots.FOLDER, *WEIGHTS, "__pycache__", ".git", ".venv", "node_modules"})


class Store:
    """Reads snapshots under `logdir`; several threads may use it."""

    def __init__(self, logdir: str) -> None:
        self.root = Path(os.path.realpath(os.path.expanduser(logdir))) if logdir else None  # noqa: PTH111
        self._names: tuple[list[str], float] = ([], -FRESH_SECONDS)

    def names(self) -> list[str]:
        """The runs that have snapshots, sorted; the log folder itself is called "."."""
        if time.monotonic() - self._names[1] > FRESH_SECONDS:
            self._names = (self._find(), time.monotonic())
        return self._names[0]

    def _find(self) -> list[str]:
        if self.root is None:
            return []
        names = []
        for visited, (folder, inside, _) in enumerate(os.walk(self.root)):  # does not follow links
            path = Path(folder)
            if snapshots.FOLDER in inside and not (path / snapshots.FOLDER).is_symlink() and snapshots.steps(path):
                names.append(path.relative_to(self.root).as_posix())
            inside[:] = sorted(name for name in inside if name not in NOT_RUNS)
            if visited >= MAX_FOLDERS:
                break
        return sorted(names)

    def newest(self) -> str | None:
        """The run whose snapshots were written last; None without runs."""
        written = {name: self._written(name) for name in self.names()}
        return max(written, key=written.__getitem__, default=None)

    def _written(self, run: str) -> float:
        try:
            return (self.folder(run) / snapshots.FOLDER).stat().st_mtime
        except (OSError, NotFound):  # it vanished
            return 0.0

    def folder(self, run: str) -> Path:
        """The folder of a run; raises NotFound if no run has that name."""
        if self.root is None or run not in self.names():
            raise NotFound(f"There is no run {run!r:.200} with snapshots in the log folder.")
        return self.root / run

    def file(self, run: str, step: int) -> Path:
        """The snapshot of a step, a plain file inside the log folder; raises NotFound."""
        file = snapshots.path(self.folder(run), step)
        if not file.is_file() or os.path.realpath(file) != str(file):
            raise NotFound(f"The run {run!r:.200} has no snapshot of step {step}.")
        return file

    def open(self, run: str, step: int) -> AbstractContextManager[tuple[BinaryIO, dict[str, Any]]]:
        """The snapshot of a step and its header, as `open_snapshot`; raises as `file`."""
        self.file(run, step)
        return snapshots.open_snapshot(self.folder(run), step)

    def _scores(self, run: str, step: int) -> dict[str, Any]:
        """As `read_scores`, cached until the file changes; empty if it cannot be read."""
        try:
            status = self.file(run, step).stat()
            return read_scores(self.folder(run), step, (status.st_mtime_ns, status.st_size))
        except (OSError, UserError, NotFound):
            return UNKNOWN

    def describe(self, run: str) -> dict[str, Any]:
        """The steps and checkpoints of a run, the newest header that can be read, and the fault of newer ones."""
        steps = snapshots.steps(self.folder(run))
        newest: dict[str, Any] | None = None
        fault = ""
        for step in reversed(steps[-20:]):
            try:
                with self.open(run, step) as (_, newest):
                    probes = [
                        {**probe, "predictions": None} for probe in newest["probes"]
                    ]  # the shown probe has its own
                    newest |= {"probes": probes}
                    break
            except (UserError, NotFound) as error:
                fault = fault or str(getattr(error, "description", error))
        return {"steps": steps, "checkpoints": self.checkpoints(run), "newest": newest, "fault": fault}

    def scores(self, run: str, name: str, after: int, probe: int | None = None) -> dict[str, Any]:
        """A score of all heads at every step after `after`: values (step, head counted through the layers) or null.

        It is that of the text which the snapshots are scored on, or of one `probe` alone.
        """
        steps = [step for step in snapshots.steps(self.folder(run)) if step > after]
        read = [self._scores(run, step) for step in steps]
        if probe is not None:
            read = [scores["probes"][probe] if 0 <= probe < len(scores["probes"]) else UNKNOWN for scores in read]
        values, chance = ([scores[key].get(name) for scores in read] for key in ("scores", "chance"))
        return {"steps": steps, "values": values, "chance": chance}

    def examples(self, run: str, step: int) -> Examples:
        """The examples at the last step up to `step` that has some, or else the first; raises NotFound without any."""
        folder = self.folder(run)
        found = examples_file.step_for(examples_file.steps(folder), step)
        file = examples_file.path(folder, found or 0)
        if found is None or not file.is_file() or os.path.realpath(file) != str(file):
            advice = "minitx heads RUN --examples prints some."
            raise NotFound(f"The run {run!r:.200} has no examples that can be read: {advice}")
        status = file.stat()
        return read_examples(folder, found, (status.st_mtime_ns, status.st_size))

    def checkpoints(self, run: str) -> list[int]:
        """The steps whose weights the run keeps, in a checkpoint or alone, in order."""
        kept: set[int] = set()
        for name, suffix in WEIGHTS.items():
            folder = self.folder(run) / name
            if folder.is_dir() and not folder.is_symlink():
                kept |= {*steps_in((entry.name for entry in folder.iterdir() if not entry.is_symlink()), suffix)}
        return sorted(kept)


@lru_cache(MAX_CACHED_HEADERS)
def read_scores(run: Path, step: int, version: tuple[int, int]) -> dict[str, Any]:
    """The scores and chance of a snapshot and its probes; with another `version`, time and size, it is read again."""
    with snapshots.open_snapshot(run, step) as (_, header):
        parts = [{"scores": part["scores"], "chance": part["chance"]} for part in (header, *header["probes"])]
        return {**parts[0], "probes": parts[1:]}


@lru_cache(MAX_CACHED_EXAMPLES)
def read_examples(run: Path, step: int, version: tuple[int, int]) -> Examples:
    """The examples of a step; `version` as for `read_scores`."""
    return examples_file.read(run, step)
