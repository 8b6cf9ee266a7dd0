"""The run folder: what training leaves and everything else reads.

    runs/NAME/config.yaml, tokenizer.model, data.json, metrics.jsonl, heads.jsonl, summary.json, checkpoints/,
    events.out.tfevents.*

A checkpoint is written beside its place, flushed to disk and renamed, and its state.json holds a checksum of every
file, so that one is either whole or recognised as damaged. Nothing that is read is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from minitx.cli import load_config
from minitx.config import Config, UserError, require
from minitx.model import Transformer
from minitx.tokenizer import Tokenizer

MODEL_FILE, OPTIMIZER_FILE, STATE_FILE = "model.safetensors", "optimizer.pt", "state.json"
METRICS_FILE, HEADS_FILE = "metrics.jsonl", "heads.jsonl"


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
            return dict(torch.load(file, map_location="cpu", weights_only=True))
        except (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, EOFError, OSError) as error:
            raise UserError(f"{file} cannot be read as the state of an optimizer.") from error


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
        return load_config(self.path / "config.yaml")

    def save_config(self, config: Config) -> None:
        text = yaml.safe_dump(config.to_dict(), sort_keys=False, allow_unicode=True, width=120)
        write_atomically(self.path / "config.yaml", text.encode())

    def tokenizer(self) -> Tokenizer:
        """The tokenizer it was trained with."""
        return Tokenizer.load(self.path / "tokenizer.model")

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        write_atomically(self.path / name, (json.dumps(content, indent=2) + "\n").encode())

    def read_json(self, name: str) -> dict[str, Any]:
        """The content of a JSON file of the run; raises UserError when it is missing or damaged."""
        try:
            content = json.loads((self.path / name).read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.path / name} is missing or damaged.") from error
        require(isinstance(content, dict), f"{self.path / name} is damaged.")
        return dict(content)

    # Metrics

    def append_metrics(self, line: dict[str, Any], name: str = METRICS_FILE) -> None:
        """Add one line to metrics.jsonl, or to the other file `name` of lines with a step."""
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def metrics(self, name: str = METRICS_FILE) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, or of `name`; a last line that a kill cut short is left out."""
        file = self.path / name
        lines = []
        for line in file.read_text("utf-8").splitlines() if file.is_file() else []:
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return lines

    def cut_metrics(self, step: int, name: str = METRICS_FILE) -> None:
        """Forget the lines after `step`, which a resumed run writes again."""
        if not (self.path / name).is_file():
            return
        kept = [json.dumps(line) + "\n" for line in self.metrics(name) if line["step"] <= step]
        write_atomically(self.path / name, "".join(kept).encode())

    # Checkpoints

    def checkpoint_names(self) -> list[str]:
        """Names of the checkpoints there are, whole or not, oldest first."""
        return sorted(path.name for path in (self.path / "checkpoints").glob("step-*") if path.is_dir())

    def save_checkpoint(
        self, model: Transformer, optimizer_state: dict[str, Any], state: dict[str, Any], *, best: bool, keep: int
    ) -> Path:
        """Write a checkpoint for state["step"], point last (and best) at it, and remove all but the newest `keep` and
        the best."""
        folder = self.path / "checkpoints"
        place = folder / f"step-{state['step']:06d}"
        draft = folder / f".{place.name}-{os.getpid()}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        save_weights(model, draft / MODEL_FILE)
        torch.save(optimizer_state, draft / OPTIMIZER_FILE)
        checksums = {name: checksum(draft / name) for name in (MODEL_FILE, OPTIMIZER_FILE)}
        (draft / STATE_FILE).write_text(json.dumps({**state, "checksums": checksums}, indent=2) + "\n", "utf-8")
        for file in draft.iterdir():
            flush_to_disk(file)
        flush_to_disk(draft)
        if place.exists():  # left by a damaged save that resume stepped over
            shutil.rmtree(place)
        draft.rename(place)
        flush_to_disk(folder)
        write_atomically(folder / "last", place.name.encode())
        if best:
            write_atomically(folder / "best", place.name.encode())
        kept = {*self.checkpoint_names()[-keep:], place.name, self.pointer("best")}
        for name in self.checkpoint_names():
            if name not in kept:
                shutil.rmtree(folder / name)
        return place

    def pointer(self, name: str) -> str | None:
        """Which checkpoint `last` or `best` points at, if any."""
        file = self.path / "checkpoints" / name
        return file.read_text("utf-8", errors="replace").strip() if file.is_file() else None

    def checkpoint(self, name: str) -> Checkpoint:
        """The checkpoint that `name` stands for: last, best, or a step such as 500. Raises UserError if it is not
        there or not whole."""
        there = self.checkpoint_names()
        require(
            bool(there), f"The run {self.path} has no checkpoint yet: resume it with 'train.py --resume {self.path}'."
        )
        if name in ("last", "best"):
            chosen = self.pointer(name)
            if chosen not in there:
                chosen = there[-1]
        else:
            steps = {int(other.removeprefix("step-")): other for other in there if other[5:].isdigit()}
            number = name.removeprefix("step-")
            there_are = ", ".join(map(str, sorted(steps)))
            require(
                number.isdigit() and int(number) in steps,
                f"The run {self.path} keeps no checkpoint {name}: it has {there_are}, best, last.",
            )
            chosen = steps[int(number)]
        return read_checkpoint(self.path / "checkpoints" / chosen)

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
        model = Transformer(config.model, tokenizer.vocab_size)
        found.load_weights(model)
        return model.to(device).eval(), found.path.name


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in `path`, every file of it checked; raises UserError that names what is damaged."""
    try:
        state = json.loads((path / STATE_FILE).read_text("utf-8"))
        checksums = {name: str(state["checksums"][name]) for name in (MODEL_FILE, OPTIMIZER_FILE)}
        int(state["step"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"The checkpoint {path} is damaged: {STATE_FILE} is missing or unreadable.") from error
    for name, expected in checksums.items():
        require((path / name).is_file(), f"The checkpoint {path} is damaged: {name} is missing.")
        require(
            checksum(path / name) == expected,
            f"The checkpoint {path} is damaged: {name} has changed since it was saved.",
        )
    return Checkpoint(path, state)


def save_weights(model: Transformer, file: Path) -> None:
    """The parameters by name, as safetensors; a tied matrix is saved once."""
    save_file({name: p.detach().cpu().contiguous() for name, p in model.named_parameters()}, file)


@torch.no_grad()
def load_weights(model: Transformer, file: Path) -> None:
    """Copy the weights of a safetensors file into `model`; raises UserError where names or shapes differ."""
    try:
        weights = load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} cannot be read as weights: {error}.") from error
    parameters = dict(model.named_parameters())
    odd = sorted(parameters.keys() ^ weights.keys())
    require(not odd, f"{file} does not fit the model: {', '.join(odd[:3])} is in one and not in the other.")
    for name, parameter in parameters.items():
        require(
            parameter.shape == weights[name].shape,
            f"{file} does not fit the model: {name} is {tuple(weights[name].shape)}, not {tuple(parameter.shape)}.",
        )
        parameter.copy_(weights[name])


def checksum(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write_atomically(file: Path, content: bytes) -> None:
    """Replace `file` by `content` so that a reader sees either the old or the new, also after a power cut."""
    draft = file.with_name(f".{file.name}-{os.getpid()}")
    draft.write_bytes(content)
    flush_to_disk(draft)
    draft.replace(file)


def flush_to_disk(path: Path) -> None:
    """Wait until a file or folder is on disk; folders cannot be flushed on Windows."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
