"""Checkpoints: folders that are either whole or recognised as damaged.

    runs/NAME/checkpoints/step-000500/model.safetensors, optimizer.pt, state.json

One is written beside its place, flushed to disk and renamed, and its state.json holds a checksum of every file and of
its own content. Which ones a run keeps is `run.py`'s affair. Nothing that is read is ever unpickled.
"""

from __future__ import annotations

import contextlib
import errno
import io
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
from minitx.system.errors import UserError, require
from minitx.system.faults import with_filename
from minitx.system.files import Watched, checksum, flush_to_disk, json_bytes, read_json, remove

MODEL_FILE, OPTIMIZER_FILE, STATE_FILE = "model.safetensors", "optimizer.pt", "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint: its folder and its state.json (step, tokens, seconds, val_loss, batches, …)."""

    path: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.state["step"])

    def load_weights(self, model: Transformer) -> None:
        """Copy the saved weights into `model`; raises UserError where they are not of its shape."""
        load_weights(model, self.path / MODEL_FILE)

    def load_optimizer(self) -> dict[str, Any]:
        """The state of optimizers and random generators, on the CPU; raises UserError when it holds anything else."""
        file = self.path / OPTIMIZER_FILE
        try:
            with warnings.catch_warnings(action="ignore"):
                return dict(torch.load(file, map_location="cpu", weights_only=True))
        except Exception as error:  # what a made-up file can raise inside torch has no end
            raise UserError(f"{file} cannot be read as the state of an optimizer.") from error


def write_checkpoint(place: Path, model: Transformer, optimizer_state: dict[str, Any], state: dict[str, Any]) -> None:
    """Put a checkpoint at `place`, a folder: weights, state of optimizers and generators, and `state` as JSON.

    Raises OSError where it cannot be written; what was there before is then as it was.
    """
    draft, old = (place.parent / f".{name}-{os.getpid()}" for name in (place.name, "old"))
    try:
        for left in (draft, old):
            remove(left)
        draft.mkdir(parents=True)
        save_weights(model, draft / MODEL_FILE)
        save_optimizer(optimizer_state, draft / OPTIMIZER_FILE)
        checksums = {name: checksum(draft / name) for name in (MODEL_FILE, OPTIMIZER_FILE)}
        with with_filename(draft / STATE_FILE):
            (draft / STATE_FILE).write_bytes(json_bytes({**state, "checksums": checksums}))
        for file in draft.iterdir():
            flush_to_disk(file)
        flush_to_disk(draft)
    except BaseException:
        remove(draft)
        raise
    if place.exists():  # a damaged one that resume stepped over
        place.rename(old)
    draft.rename(place)
    flush_to_disk(place.parent)
    remove(old)


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in `path`, every file of it checked; raises UserError that names what is damaged."""
    damaged = f"The checkpoint {path} is damaged"
    try:
        state = read_json(path / STATE_FILE)
        checksums = {name: str(state["checksums"][name]) for name in (MODEL_FILE, OPTIMIZER_FILE)}
        require(state["step"] == step_of(path.name), f"{damaged}: {STATE_FILE} is of step {state['step']}.")
    except (UserError, KeyError, TypeError) as error:
        raise UserError(f"{damaged}: {STATE_FILE} is missing or unreadable.") from error
    for name, expected in checksums.items():
        require((path / name).is_file(), f"{damaged}: {name} is missing.")
        try:
            found = checksum(path / name)
        except OSError as error:
            raise UserError(f"{damaged}: {name} cannot be read ({error.strerror}).") from error
        require(found == expected, f"{damaged}: {name} has changed since it was saved.")
    return Checkpoint(path, state)


def step_of(name: str) -> int:
    """The step in the name of a checkpoint, step-000500."""
    return int(name[5:])


def save_weights(model: Transformer, file: Path) -> None:
    """The parameters by name, as safetensors; a tied matrix is saved once. Raises OSError where there is no room."""
    try:
        save_file({name: p.detach().cpu().contiguous() for name, p in model.named_parameters()}, file)
    except SafetensorError as error:
        code = re.search(r"os error (\d+)", str(error))
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number), str(file)) from error


def save_optimizer(state: dict[str, Any], file: Path) -> None:
    """State of optimizers and generators by torch.save. Raises OSError where there is no room."""
    with with_filename(file), contextlib.closing(Watched(io.FileIO(file, "w"))) as opened:
        try:
            torch.save(state, opened)
        except RuntimeError as error:
            if opened.error is None:
                raise
            raise opened.error from error


@torch.no_grad()
def load_weights(model: Transformer, file: Path) -> None:
    """Copy the weights of a safetensors file into `model`; raises UserError where names or shapes differ."""
    try:
        weights = load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} cannot be read as weights: {error}.") from error
    parameters = dict(model.named_parameters())
    weights = {name: weight for name, weight in weights.items() if name in parameters or not lost(name, model)}
    odd = sorted(parameters.keys() ^ weights.keys())
    require(not odd, f"{file} does not fit the model: {', '.join(odd[:3])} is in one and not in the other.")
    for name, parameter in parameters.items():
        require(
            parameter.shape == weights[name].shape,
            f"{file} does not fit the model: {name} is {tuple(weights[name].shape)}, not {tuple(parameter.shape)}.",
        )
        parameter.copy_(weights[name])


def lost(name: str, model: Transformer) -> bool:
    """Whether a weight belongs to a layer that pruning left without heads; minitx 0.1 saved some of those."""
    prefix, _, rest = name.partition(".attention.")
    return bool(rest) and model.get_submodule(prefix).attention is None
