"""The snapshots under TensorBoard's log folder: which runs have some, and the files of one run, and nothing else.

A run is asked for by its name, the path of its folder in the log folder, and a name counts only if `names` found it: so
no name can climb out. Links are not followed.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any

from minitx.heads import snapshots
from minitx.heads.snapshots import SnapshotError

MAX_FOLDERS = 20_000
FRESH_SECONDS = 1.0
"""How long a list of runs holds, so that a burst of requests looks at the disk once."""
MAX_KNOWN = 4000
"""Snapshots whose scores are remembered."""
NOT_RUNS = frozenset({snapshots.FOLDER, "checkpoints", "__pycache__", ".git", ".venv", "node_modules"})


class MissingError(Exception):
    """There is nothing of that name. The message is one sentence."""


class Store:
    """Reads snapshots under `logdir`; safe to use from several threads."""

    def __init__(self, logdir: str) -> None:
        self.root = Path(os.path.realpath(os.path.expanduser(logdir))) if logdir else None  # noqa: PTH111
        self._lock = Lock()
        self._names: tuple[float, list[str]] = (-FRESH_SECONDS, [])
        self._known: OrderedDict[Path, tuple[tuple[int, int], dict[str, Any]]] = OrderedDict()

    def names(self) -> list[str]:
        """The runs that have snapshots, sorted; the log folder itself is called "."."""
        when, names = self._names
        if time.monotonic() - when > FRESH_SECONDS:
            names = self._find()
            self._names = (time.monotonic(), names)
        return names

    def _find(self) -> list[str]:
        found: list[str] = []
        if self.root is None:
            return found
        for visited, (folder, inside, _) in enumerate(os.walk(self.root)):  # does not follow links
            path = Path(folder)
            if snapshots.FOLDER in inside and not (path / snapshots.FOLDER).is_symlink() and snapshots.steps(path):
                found.append(path.relative_to(self.root).as_posix())
            inside[:] = sorted(name for name in inside if name not in NOT_RUNS)
            if visited >= MAX_FOLDERS:
                break
        return sorted(found)

    def folder(self, run: str) -> Path:
        """The folder of a run; raises MissingError where no run has that name."""
        if self.root is None or run not in self.names():
            raise MissingError(f"There is no run {run!r:.200} with snapshots in the log folder.")
        return self.root / run

    def file(self, run: str, step: int) -> Path:
        """The snapshot of a step, a plain file inside the log folder; raises MissingError."""
        folder = self.folder(run)
        file = snapshots.path(folder, step)
        if not file.is_file() or os.path.realpath(file) != str(file):
            raise MissingError(f"The run {run!r:.200} has no snapshot of step {step}.")
        return file

    def header(self, run: str, step: int) -> dict[str, Any]:
        """The header of a snapshot; raises MissingError and SnapshotError."""
        with self.file(run, step).open("rb") as opened:
            return snapshots.read_header(opened)

    def _scores(self, run: str, step: int) -> dict[str, Any]:
        """The scores and chance of a snapshot, kept while its file stays the same; empty where it cannot be read."""
        try:
            file = self.file(run, step)
            status = file.stat()
            mark = (status.st_mtime_ns, status.st_size)
            with self._lock:
                known = self._known.get(file)
            if known is not None and known[0] == mark:
                return known[1]
            header = self.header(run, step)
            kept = {"scores": header["scores"], "chance": header["chance"]}
        except (OSError, SnapshotError, MissingError):
            return {"scores": {}, "chance": {}}
        with self._lock:
            self._known[file] = (mark, kept)
            while len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
        return kept

    def describe(self, run: str) -> dict[str, Any]:
        """What the tab needs to know of a run: steps, checkpoints still kept, and the newest header that is whole."""
        folder = self.folder(run)
        steps = snapshots.steps(folder)
        newest: dict[str, Any] | None = None
        fault = ""
        for step in reversed(steps[-20:]):
            try:
                newest = self.header(run, step)
                break
            except (OSError, SnapshotError, MissingError) as error:
                fault = fault or f"Step {step}: {error}"
        return {"steps": steps, "checkpoints": self.checkpoints(run), "newest": newest, "fault": fault}

    def scores(self, run: str, name: str, after: int) -> dict[str, Any]:
        """A score of all heads at every step after `after`: values (step, head through the layers) or null."""
        steps = [step for step in snapshots.steps(self.folder(run)) if step > after]
        told = [self._scores(run, step) for step in steps]
        return {
            "steps": steps,
            "values": [one["scores"].get(name) for one in told],
            "chance": [one["chance"].get(name) for one in told],
        }

    def checkpoints(self, run: str) -> list[int]:
        """The steps whose checkpoints the run still keeps."""
        folder = self.folder(run) / "checkpoints"
        if not folder.is_dir() or folder.is_symlink():
            return []
        return snapshots.steps_in(entry.name for entry in folder.iterdir() if not entry.is_symlink())
