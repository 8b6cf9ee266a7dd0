"""Checkpoints: folders that are whole, or recognised as damaged.

    runs/NAME/checkpoints/step-000500/model.safetensors, optimizer.pt, state.json

A checkpoint is written under a temporary name, flushed to disk and renamed. Its state.json holds a checksum of each
file and of itself. Nothing is ever unpickled.
"""

import contextlib
import errno
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from minitx.model import Transformer
from minitx.run.logs import log_state
from minitx.system import files
from minitx.system.errors import UserError, require
from minitx.system.text import warn

FOLDER = "checkpoints"
MODEL_FILE, OPTIMIZER_FILE, STATE_FILE = "model.safetensors", "optimizer.pt", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint: its folder and the content of state.json (step, tokens, seconds, val_loss, batches, …)."""

    path: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.state["step"])

    @torch.no_grad()
    def load_weights(self, model: Transformer) -> None:
        """Copy the saved weights into `model`; raises UserError where names or shapes differ."""
        file, parameters = self.path / MODEL_FILE, dict(model.named_parameters())
        try:
            weights = load_file(file)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} cannot be read as weights: {error}.") from error
        # minitx 0.1 saved norms of layers that pruning left without heads.
        lost = tuple(f"blocks.{i}.attention." for i, block in enumerate(model.blocks) if block.attention is None)
        odd = sorted(parameters.keys() ^ {name for name in weights if not name.startswith(lost)})
        require(not odd, f"{file} does not fit the model: {', '.join(odd[:3])} is in one and not in the other.")
        for name, parameter in parameters.items():
            saved, expected = tuple(weights[name].shape), tuple(parameter.shape)
            require(saved == expected, f"{file} does not fit the model: {name} is {saved}, not {expected}.")
            parameter.copy_(weights[name])

    def load_optimizer(self) -> dict[str, Any]:
        """The state of optimizers and random generators, on the CPU; raises UserError where it cannot be read."""
        file = self.path / OPTIMIZER_FILE
        try:
            with warnings.catch_warnings(action="ignore"):
                return dict(torch.load(file, map_location="cpu", weights_only=True))
        except Exception as error:  # torch can raise anything on a file made by hand
            raise UserError(f"{file} cannot be read as the state of an optimizer.") from error


def steps(run: Path) -> list[int]:
    """The steps that have a checkpoint, whole or not, in order."""
    return files.steps_in(path.name for path in (run / FOLDER).glob("step-*") if path.is_dir())


def names(run: Path) -> list[str]:
    """Names of the checkpoints, whole or not, oldest first."""
    return [files.step_name(step) for step in steps(run)]


def save(
    run: Path, model: Transformer, optimizer_state: dict[str, Any], state: dict[str, Any], *, best: bool, keep: int
) -> Path:
    """Write a checkpoint for state["step"], then remove all but the best one and the newest `keep`.

    Raises OSError where it cannot be written; earlier checkpoints stay as they were.
    """
    folder, step = run / FOLDER, state["step"]
    name = files.step_name(step)
    best_now = name if best else best_before(run, step)
    write_checkpoint(folder / name, model, optimizer_state, {**state, "best": best_now, "logs": log_state(run)})
    # For people to read: minitx looks for the newest checkpoint, whose state names the best.
    files.write_atomically(folder / "last", name.encode())
    if best:
        files.write_atomically(folder / "best", name.encode())
    saved = steps(run)
    newest = [other for other in saved if other <= step][-keep:]  # later ones are damaged: resuming skipped them
    for other in saved:
        if other not in newest and files.step_name(other) != best_now:
            files.remove(folder / files.step_name(other))
    return folder / name


def best_before(run: Path, step: int) -> str | None:
    """Name of the best checkpoint up to `step`, from the newest state.json that can be read; None if there is none."""
    for other in reversed(steps(run)):
        if other <= step:
            with contextlib.suppress(UserError):
                best = files.read_json(run / FOLDER / files.step_name(other) / STATE_FILE).get("best")
                return best if best in names(run) else None
    return None


def find(run: Path, name: str) -> Checkpoint:
    """The checkpoint that `name` selects: last, best, or a step such as 500.

    If last or best is damaged, the newest whole one is returned with a warning. Raises UserError if there is none.
    """
    saved = steps(run)
    require(bool(saved), f"The run {run} has no checkpoint yet: resume it with 'train.py --resume {run}'.")
    if name not in ("last", "best"):
        number = name.removeprefix("step-")
        is_saved, choice = number.isdecimal() and int(number) in saved, ", ".join(map(str, saved))
        require(is_saved, f"The run {run} keeps no checkpoint {name}: it has {choice}, best, last.")
        return read_checkpoint(run / FOLDER / files.step_name(int(number)))
    checkpoint, faults = newest_whole(run)
    if checkpoint is None:
        raise UserError(f"The run {run} has no whole checkpoint: {faults[0]}")
    best = checkpoint.state.get("best")
    if name == "best" and isinstance(best, str) and best != checkpoint.path.name:
        try:
            require(best in names(run), f"The best checkpoint of {run} is missing.")
            checkpoint = read_checkpoint(run / FOLDER / best)
        except UserError as error:
            faults.append(str(error))
    for fault in faults:
        warn(f"{fault} Taking {checkpoint.path.name} instead.")
    return checkpoint


def newest_whole(run: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint that is whole, and a sentence for each newer one, which is damaged."""
    faults: list[str] = []
    for step in reversed(steps(run)):
        try:
            return read_checkpoint(run / FOLDER / files.step_name(step)), faults
        except UserError as error:
            faults.append(str(error))
    return None, faults


def write_checkpoint(place: Path, model: Transformer, optimizer_state: dict[str, Any], state: dict[str, Any]) -> None:
    """Write the folder `place`: weights, state of optimizers and generators, and `state` as JSON.

    Raises OSError where it cannot be written; a checkpoint that was in `place` then stays as it was.
    """
    draft, old = files.draft_of(place), files.draft_of(place.with_name("old"))
    try:
        files.remove(draft)
        files.remove(old)
        draft.mkdir(parents=True)
        save_weights(model, draft / MODEL_FILE)
        save_optimizer(optimizer_state, draft / OPTIMIZER_FILE)
        checksums = {name: files.checksum(draft / name) for name in (MODEL_FILE, OPTIMIZER_FILE)}
        files.write_atomically(draft / STATE_FILE, files.json_bytes({**state, "checksums": checksums}))
        for file in draft.iterdir():
            files.flush_to_disk(file)
        files.flush_to_disk(draft)
    except BaseException:
        files.remove(draft)
        raise
    if place.exists():  # a damaged one that a resumed run stepped over
        place.rename(old)
    draft.rename(place)
    files.flush_to_disk(place.parent)
    files.remove(old)


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in `path`, after checking every file; raises UserError that names the damaged one."""
    damaged = f"The checkpoint {path} is damaged"
    try:
        state = files.read_json(path / STATE_FILE)
        step, checksums = state["step"], {name: str(state["checksums"][name]) for name in (MODEL_FILE, OPTIMIZER_FILE)}
    except (UserError, KeyError, TypeError) as error:
        raise UserError(f"{damaged}: {STATE_FILE} is missing or unreadable.") from error
    require(step == files.step_of(path.name), f"{damaged}: {STATE_FILE} is of step {step}.")
    for name, expected in checksums.items():
        require((path / name).is_file(), f"{damaged}: {name} is missing.")
        try:
            actual = files.checksum(path / name)
        except OSError as error:
            raise UserError(f"{damaged}: {name} cannot be read ({error.strerror}).") from error
        require(actual == expected, f"{damaged}: {name} has changed since it was saved.")
    return Checkpoint(path, state)


def save_weights(model: Transformer, file: Path) -> None:
    """Save the parameters by name as safetensors, a tied matrix once. Raises OSError where the disk is full."""
    try:
        save_file({name: p.detach().cpu().contiguous() for name, p in model.named_parameters()}, file)
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number), str(file)) from error


def save_optimizer(state: dict[str, Any], file: Path) -> None:
    """Save the state of optimizers and generators. Raises OSError where the disk is full."""
    with files.with_filename(file), file.open("wb") as opened:
        try:
            torch.save(state, opened)
        except RuntimeError as error:  # torch does not say why writing failed
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None
