"""The run folder: what training leaves and everything else reads.

    runs/NAME/config.yaml, tokenizer.model, data.json, metrics.jsonl, heads.jsonl, summary.json, checkpoints/,
    events.out.tfevents.*

The checkpoints (checkpoints.py) hold checksums of the metrics and curves up to them, so that a resumed run goes on
exactly where one of them was. Nothing that is read is ever unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

from minitx.config import Config
from minitx.config.parsing import load_config
from minitx.data.tokenizer import Tokenizer
from minitx.model import Transformer
from minitx.model_size import require_memory
from minitx.run.checkpoints import STATE_FILE, Checkpoint, read_checkpoint, step_of, write_checkpoint
from minitx.run.logs import HEADS_FILE, LOGS, METRICS_FILE
from minitx.system.errors import UserError, require
from minitx.system.faults import with_filename
from minitx.system.files import checksum, flush_to_disk, json_bytes, read_json, remove, write_atomically
from minitx.system.text import warn

if sys.platform != "win32":
    import fcntl

DRAFT = re.compile(r"\..+-\d+")
"""Name of what is being written, with the process that writes it, until it is renamed to what it is."""


class Run:
    """One run folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def create(out: str) -> Run:
        """A new folder at `out`, or at `out`-2, `out`-3 … where that is taken."""
        parent, number = Path(out).parent, 1
        try:
            parent.mkdir(parents=True, exist_ok=True)
            while True:
                path = Path(out if number == 1 else f"{out}-{number}")
                try:
                    path.mkdir()
                    return Run(path)
                except FileExistsError:
                    number += 1
        except OSError as error:
            raise UserError(
                f"The run folder {out} cannot be made: {error.strerror}; set out to another place."
            ) from error

    @staticmethod
    def find(path: str | None, root: str = "runs") -> Run:
        """The run at `path`, or the newest one with a checkpoint under `root`."""
        if path is not None:
            require(
                Path(path).is_dir(), f"There is no run {path}: train one with 'python train.py', or look in {root}/."
            )
            require((Path(path) / "config.yaml").is_file(), f"{path} is not a run folder: it has no config.yaml.")
            return Run(Path(path))
        runs = [Run(config.parent) for config in Path(root).glob("*/config.yaml")]
        runs = [run for run in runs if run.checkpoint_names()]
        require(bool(runs), f"There is no trained run in {root}/ yet: train one with 'python train.py'.")
        return max(runs, key=lambda run: (run.path / "checkpoints").stat().st_mtime)

    # What describes the run

    def config(self) -> Config:
        """The configuration it was trained with."""
        check_seal(self.path / "config.yaml")
        return load_config(self.path / "config.yaml")

    def save_config(self, config: Config) -> None:
        settings = config.to_dict()
        text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=120)
        if yaml.safe_load(text) != settings:  # PyYAML writes U+0085 and its like so that they come back as spaces
            text = yaml.safe_dump(settings, sort_keys=False, width=120)
        write_atomically(self.path / "config.yaml", sealed(text).encode())

    def tokenizer(self) -> Tokenizer:
        """The tokenizer it was trained with; raises UserError when it has changed since."""
        file = self.path / "tokenizer.model"
        if file.is_file() and (self.path / "data.json").exists():
            require(
                checksum(file) == self.read_json("data.json").get("tokenizer"),
                f"{file} has changed since the run began: restore it from a copy.",
            )
        return Tokenizer.load(file)

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file of the run, with a checksum of what it says."""
        write_atomically(self.path / name, json_bytes(content))

    def read_json(self, name: str) -> dict[str, Any]:
        """The content of a JSON file of the run; raises UserError when it is missing or damaged."""
        return read_json(self.path / name)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training in the same folder, and clear away what killed ones left half-written.

        Raises UserError where one is at it. Windows does not lock folders: there it is left to the user.
        """
        if sys.platform == "win32":
            self.remove_drafts()
            yield
            return
        folder = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UserError(
                    f"Another process is training in {self.path}: wait for it, or stop it first."
                ) from error
            except OSError:  # a file system without locks
                pass
            self.remove_drafts()
            yield
        finally:
            os.close(folder)

    def remove_drafts(self) -> None:
        """Remove what killed processes left half-written."""
        for folder in (self.path, self.path / "checkpoints"):
            for path in folder.glob(".*"):
                if DRAFT.fullmatch(path.name):
                    remove(path)

    # Metrics

    def append_metrics(self, line: dict[str, Any], name: str = METRICS_FILE) -> None:
        """Add one line to metrics.jsonl, or to the other file `name` of lines with a step.

        What is not finite becomes null, which JSON has no other word for.
        """
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
        file = self.path / name
        with with_filename(file), file.open("a", encoding="utf-8") as opened:
            opened.write(json.dumps(finite) + "\n")

    def metrics(self, name: str = METRICS_FILE) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, or of `name`; one that a kill cut short, or that is damaged, is left out."""
        file = self.path / name
        lines = []
        for text in file.read_text("utf-8", errors="replace").split("\n") if file.is_file() else []:
            with contextlib.suppress(ValueError, RecursionError):
                line = json.loads(text)
                if isinstance(line, dict) and isinstance(line.get("step"), int):
                    lines.append(line)
        return lines

    # What a run writes as it goes: metrics and TensorBoard's events

    def logs(self) -> list[Path]:
        """The files that grow while the run goes on."""
        return sorted(path for name in LOGS for path in self.path.glob(name) if path.is_file())

    def logs_so_far(self) -> dict[str, dict[str, Any]]:
        """Size and checksum of each of `logs`, brought to disk, for a checkpoint to keep."""
        for file in self.logs():
            flush_to_disk(file)
        return {file.name: {"bytes": file.stat().st_size, "sha256": checksum(file)} for file in self.logs()}

    def cut_logs(self, checkpoint: Checkpoint | None) -> None:
        """Put `logs` back to what they were at the checkpoint, or to nothing: a resumed run writes the rest again, and
        no step is there twice. A file that has changed in the part that stays is named in a warning."""
        saved = checkpoint.state["logs"] if checkpoint else {}
        there = {file.name: file for file in self.logs()}
        for name in there.keys() - saved.keys():
            remove(there[name])
        for name in saved:
            if name not in there:
                warn(f"{self.path / name} is missing: its part up to the checkpoint is lost.")
                continue
            file, size = there[name], int(saved[name]["bytes"])
            content = file.read_bytes()
            kept = content[:size]
            if hashlib.sha256(kept).hexdigest() != saved[name]["sha256"]:
                warn(f"{file} has changed since the checkpoint: what of it cannot be read is lost.")
                if name in (METRICS_FILE, HEADS_FILE) and checkpoint:
                    lines = [json.dumps(line) + "\n" for line in self.metrics(name) if line["step"] <= checkpoint.step]
                    kept = "".join(lines).encode()
            if kept != content or file.is_symlink():
                write_atomically(file, kept)

    # Checkpoints

    def checkpoint_names(self) -> list[str]:
        """Names of the checkpoints there are, whole or not, oldest first."""
        found = [path.name for path in (self.path / "checkpoints").glob("step-*") if path.is_dir()]
        return sorted((name for name in found if name[5:].isdecimal()), key=step_of)

    def save_checkpoint(
        self, model: Transformer, optimizer_state: dict[str, Any], state: dict[str, Any], *, best: bool, keep: int
    ) -> Path:
        """Write a checkpoint for state["step"], point last (and best) at it, and remove all but the newest `keep` and
        the best.

        Raises OSError where it cannot be written; what was there before is then as it was.
        """
        folder = self.path / "checkpoints"
        place = folder / f"step-{state['step']:06d}"
        best_name = place.name if best else self.best(state["step"])
        write_checkpoint(place, model, optimizer_state, {**state, "best": best_name, "logs": self.logs_so_far()})
        # For people to read; minitx itself takes the newest checkpoint and the best that it names.
        write_atomically(folder / "last", place.name.encode())
        if best:
            write_atomically(folder / "best", place.name.encode())
        # Later steps than this one can only be damaged ones: they do not count among the newest.
        upto = [name for name in self.checkpoint_names() if step_of(name) <= state["step"]]
        for name in self.checkpoint_names():
            if name not in (*upto[-keep:], place.name, best_name):
                remove(folder / name)
        return place

    def best(self, upto: int) -> str | None:
        """Name of the best checkpoint by what the newest one up to step `upto` says, if there is any."""
        for name in reversed(self.checkpoint_names()):
            if step_of(name) <= upto:
                with contextlib.suppress(UserError):
                    best = read_json(self.path / "checkpoints" / name / STATE_FILE).get("best")
                    return best if best in self.checkpoint_names() else None
        return None

    def checkpoint(self, name: str) -> Checkpoint:
        """The checkpoint that `name` stands for: last, best, or a step such as 500.

        Where the last or the best is damaged, the newest whole one with a warning. Raises UserError if there is none.
        """
        there = self.checkpoint_names()
        require(
            bool(there), f"The run {self.path} has no checkpoint yet: resume it with 'train.py --resume {self.path}'."
        )
        if name in ("last", "best"):
            newest, faults = self.newest_whole_checkpoint()
            if newest is None:
                raise UserError(f"The run {self.path} has no whole checkpoint: {faults[0]}")
            best = newest.state.get("best")
            if name == "best" and isinstance(best, str) and best != newest.path.name:
                try:
                    require(best in there, f"The best checkpoint of {self.path} is missing.")
                    newest = read_checkpoint(self.path / "checkpoints" / best)
                except UserError as error:
                    faults.append(str(error))
            for fault in faults:
                warn(f"{fault} Taking {newest.path.name} where it was wanted.")
            return newest
        steps = {step_of(other): other for other in there}
        number = name.removeprefix("step-")
        there_are = ", ".join(map(str, sorted(steps)))
        require(
            number.isdecimal() and int(number) in steps,
            f"The run {self.path} keeps no checkpoint {name}: it has {there_are}, best, last.",
        )
        return read_checkpoint(self.path / "checkpoints" / steps[int(number)])

    def newest_whole_checkpoint(self) -> tuple[Checkpoint | None, list[str]]:
        """The newest checkpoint that is whole, and a sentence for each newer one that is not."""
        faults: list[str] = []
        for name in reversed(self.checkpoint_names()):
            try:
                return read_checkpoint(self.path / "checkpoints" / name), faults
            except UserError as error:
                faults.append(str(error))
        return None, faults

    def load_model(self, checkpoint: str, device: torch.device) -> tuple[Transformer, str]:
        """The model in evaluation mode, and the name of the checkpoint it comes from."""
        found = self.checkpoint(checkpoint)
        config, tokenizer = self.config(), self.tokenizer()
        require_memory(config.model, tokenizer.vocab_size, device, training=False)
        model = Transformer(config.model, tokenizer.vocab_size)
        found.load_weights(model)
        return model.to(device).eval(), found.path.name


SEAL = re.compile(r"# sha256 of the lines below \(take this line out if you edit them\): ([0-9a-f]{64})\n")


def sealed(settings: str) -> str:
    """The text of a run's config.yaml, with a first line by which damage is noticed."""
    line = f"# sha256 of the lines below (take this line out if you edit them): {digest(settings)}\n"
    return line + settings


def check_seal(file: Path) -> None:
    """Raise `UserError` unless a run's config.yaml is as it was written, or was edited by someone who took the first
    line out."""
    try:
        text = file.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from error
    seal = SEAL.match(text)
    whole = digest(text[seal.end() :]) == seal[1] if seal else not text.startswith("# sha256")
    require(
        whole and bool(text.strip("# \n")),
        f"{file} is damaged, or was edited: restore it; if you edited it yourself, take its first line out.",
    )


def digest(text: str) -> str:
    """SHA-256 of a text, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", errors="surrogateescape")).hexdigest()
