"""Checkpoints: folders that are whole, or recognised as damaged.

    runs/NAME/checkpoints/step-000500/model.safetensors, optimizer.pt, state.json

A checkpoint is written under a temporary name, flushed to disk and renamed. Its state.json holds a checksum of each
file and of itself. Nothing is ever unpickled.
"""

import contextlib
import errno
import math
import os
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from minitx.data.stream import read_place
from minitx.model import Transformer
from minitx.run.logs import log_state, read_log_state
from minitx.system import files
from minitx.system.errors import UserError, require
from minitx.system.fields import Fields
from minitx.system.program import command
from minitx.system.recorded import Recorded, is_unchanged, read_record, record
from minitx.system.text import warn

FOLDER = "checkpoints"
MODEL_FILE, OPTIMIZER_FILE, STATE_FILE = "model.safetensors", "optimizer.pt", "state.json"


@dataclass
class Progress:
    """How far a run is."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    """Seconds of training steps alone: the clock stops for everything else."""
    val_loss: float | None = None
    best_val_loss: float = math.inf
    best_step: int = 0
    skipped: int = 0
    """Bad steps that were left out."""
    unevaluated: list[float] | None = None
    """Loss and gradient norm of the last step if a signal ended its evaluation, which a resumed run then repeats."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: its folder, and the content of its state.json."""

    path: Path
    progress: Progress
    batches: dict[str, Any] | None = None
    """What `Batches.restore` takes; None of an imported run."""
    best: str | None = None
    """Name of the run's best checkpoint so far."""
    logs: dict[str, Recorded] = field(default_factory=dict)

    @property
    def step(self) -> int:
        return self.progress.step

    def load_weights(self, model: Transformer) -> None:
        """Copy the saved weights into `model`; raises UserError where names or shapes differ."""
        file = self.path / MODEL_FILE
        try:
            weights = load_file(file)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file} cannot be read as weights: {error}.") from error
        copy_weights(weights, model, file)

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
    state = newest_state(run, step)
    return state.best if state and state.best in names(run) else None


def newest_state(run: Path, step: float = math.inf) -> Checkpoint | None:
    """The newest checkpoint up to `step` whose state.json can be read; its other files are not checked."""
    for other in reversed(steps(run)):
        with contextlib.suppress(UserError):
            if other <= step:
                return read_state(run / FOLDER / files.step_name(other))[0]
    return None


def find(run: Path, name: str) -> Checkpoint:
    """The checkpoint that `name` selects: last, best, or a step such as 500.

    If last or best is damaged, the newest whole one is returned with a warning. Raises UserError if there is none.
    """
    saved = steps(run)
    require(bool(saved), f"The run {run} has no checkpoint yet: resume it with '{command('train')} --resume {run}'.")
    if name not in ("last", "best"):
        number = name.removeprefix("step-")
        is_saved, choice = number.isdecimal() and int(number) in saved, ", ".join(map(str, saved))
        require(is_saved, f"The run {run} keeps no checkpoint {name}: it has {choice}, best, last.")
        return read_checkpoint(run / FOLDER / files.step_name(int(number)))
    checkpoint, faults = newest_whole(run)
    if checkpoint is None:
        raise UserError(f"The run {run} has no whole checkpoint: {faults[0]}")
    best = checkpoint.best
    if name == "best" and best is not None and best != checkpoint.path.name:
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
    place.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(place) as draft:
        draft.mkdir()
        save_weights(model, draft / MODEL_FILE)
        save_optimizer(optimizer_state, draft / OPTIMIZER_FILE)
        checksums = {name: record(draft / name)._asdict() for name in (MODEL_FILE, OPTIMIZER_FILE)}
        content = files.without_nan({**state, "checksums": checksums})
        files.write_atomically(draft / STATE_FILE, files.json_bytes(content))


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in `path`, after checking every file; raises UserError that names the damaged one."""
    checkpoint, recorded = read_state(path)
    for name, before in recorded.items():
        require(is_unchanged(path / name, before), f"{path / name} is damaged: it has changed since it was saved.")
    return checkpoint


def read_state(path: Path) -> tuple[Checkpoint, dict[str, Recorded]]:
    """What state.json in `path` says of the run and of the other files; raises UserError that names a wrong field."""
    fields = Fields(files.read_json(path / STATE_FILE), str(path / STATE_FILE))
    step = files.step_of(path.name)
    fields.expect(fields.whole("step") == step, "step", f"{step}, as its folder says,")
    progress, batches = Progress(step), None
    if "tokens" in fields:  # an imported run has trained nothing
        val_loss, best_val_loss = fields.number_or_nan("val_loss"), fields.number_or_nan("best_val_loss")
        progress = Progress(
            step=step,
            tokens=fields.whole("tokens"),
            seconds=fields.number("seconds", most=1e9),
            val_loss=None if math.isnan(val_loss) else val_loss,
            best_val_loss=math.inf if math.isnan(best_val_loss) else best_val_loss,
            best_step=fields.whole("best_step"),
            skipped=fields.whole("skipped"),
            unevaluated=fields.numbers("unevaluated", 2, 2) if fields.has("unevaluated") else None,
        )
        batches = read_place(fields.inside("batches", dict))
    best = fields.text("best", "step-[0-9]{6,12}", "the name of a checkpoint") if fields.has("best") else None
    checksums = fields.inside("checksums", dict)
    recorded = {name: read_record(checksums, name) for name in (MODEL_FILE, OPTIMIZER_FILE)}
    return Checkpoint(path, progress, batches, best, read_log_state(fields)), recorded


@torch.no_grad()
def copy_weights(weights: dict[str, Tensor], model: Transformer, file: Path) -> None:
    """Copy weights, which `file` has, into `model`; raises UserError where names or shapes differ."""
    parameters = dict(model.named_parameters())
    # minitx 0.1 saved norms of layers that pruning left without heads.
    lost = tuple(f"blocks.{i}.attention." for i, block in enumerate(model.blocks) if block.attention is None)
    odd = sorted(parameters.keys() ^ {name for name in weights if not name.startswith(lost)})
    misfit = f"{file} does not fit the model of config.yaml"
    require(not odd, f"{misfit}: {', '.join(odd[:3])} is in one and not in the other.")
    for name, parameter in parameters.items():
        saved, expected = tuple(weights[name].shape), tuple(parameter.shape)
        require(saved == expected, f"{misfit}: {name} is {saved}, not {expected}.")
        parameter.copy_(weights[name])


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
