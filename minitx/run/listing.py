"""Run folders at a glance, from small files alone and without torch: quick for hundreds of runs.

A damaged run is listed too, with what is wrong. Only `check` reads every file.
"""

import contextlib
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from minitx.config.parsing import MAX_BYTES
from minitx.system import files
from minitx.system.errors import UserError, require
from minitx.system.fields import LARGEST, Fields, parse_json
from minitx.system.program import command
from minitx.system.recorded import read_record

MAX_DEPTH = 3
"""Levels of folders to look for runs in: minitx compare puts its runs below another folder."""
STEPS = re.compile(r"^train:\n(?: +.*\n)*?  steps: ([0-9]{1,15})$", re.MULTILINE)
"""train.steps as `Run.save_config` writes it; all of YAML would take milliseconds a run."""


@dataclass
class Listed:
    """A run folder; None where no readable file says."""

    path: str
    date: float = 0.0
    """Of its newest checkpoint, in seconds since 1970."""
    step: int = 0
    """Of its newest checkpoint."""
    steps: int | None = None
    """train.steps."""
    val_loss: float | None = None
    """In nats per token, at `step`."""
    val_bits_per_byte: float | None = None
    parameters: int | None = None
    bytes: int = 0
    state: Literal["finished", "unfinished", "training", "imported", "damaged"] = "unfinished"
    """An unfinished run can be resumed. An imported one has no training text."""
    faults: list[str] = field(default_factory=list)


def list_runs(folder: Path, check: bool = False) -> list[Listed]:
    """The runs in `folder`, which may be one itself, by date; check: also compare every file with its checksum.

    Raises UserError if there is no such folder.
    """
    require(not folder.is_file(), f"{folder} is a file: name a folder with runs, or leave it out for runs/.")
    missing = f"There is no folder {folder}: name the folder of your runs, or train one with '{command('train')}'."
    require(folder.is_dir(), missing)
    runs = [look(path, check) for path in run_folders(folder)]
    return sorted(runs, key=lambda run: (run.date, run.path))


def run_folders(folder: Path, depth: int = MAX_DEPTH) -> Iterator[Path]:
    """The run folders in `folder`, whole or not; hidden ones are being made, or are left from a killed process."""
    with contextlib.suppress(OSError):  # a folder that may not be read
        if (folder / "config.yaml").is_file() or (folder / "checkpoints").is_dir():
            yield folder
        elif depth:
            for inside in sorted(folder.iterdir()):
                if inside.is_dir() and not inside.name.startswith("."):
                    yield from run_folders(inside, depth - 1)


def look(path: Path, check: bool = False) -> Listed:
    """The run in the folder `path`; check: as in `list_runs`."""
    run, folder = Listed(str(path), bytes=size_of(path)), path / "checkpoints"
    with noting(run.faults):
        run.date = (folder if folder.is_dir() else path).stat().st_mtime
    with noting(run.faults):
        settings = STEPS.search(files.read_file(path / "config.yaml", MAX_BYTES).decode(errors="replace"))
        run.steps = int(settings[1]) if settings else None
    for step in reversed(files.steps_in(inside.name for inside in folder.glob("step-*"))):
        with noting(run.faults):
            read_checkpoint(run, folder / files.step_name(step), step)
            break
    with noting(run.faults):
        read_bits(run, Fields(files.read_json(path / "data.json"), str(path / "data.json")))
    if os.path.lexists(path / "summary.json"):
        run.state = "finished"
        with noting(run.faults):
            files.read_json(path / "summary.json")
    elif run.state == "unfinished" and is_training(path):
        run.state = "training"
    if check:
        run.faults = list(dict.fromkeys([*run.faults, *faults_of(path)]))
    if run.faults:
        run.state = "damaged"
    return run


def is_training(path: Path) -> bool:
    """Whether a process of this machine holds the lock of the run in `path`; see `Run.locked`."""
    if (path / ".lock").exists():  # left over where a process was killed
        try:
            FileLock(path / ".lock").acquire(blocking=False).lock.release()
        except Timeout:
            return True
        except OSError:  # a file system without locks
            pass
    return False


@contextlib.contextmanager
def noting(faults: list[str]) -> Iterator[None]:
    """Add the sentence of an error raised inside to `faults`."""
    try:
        yield
    except (UserError, OSError) as error:
        faults.append(str(error))


def read_checkpoint(run: Listed, folder: Path, step: int) -> None:
    """Put what a checkpoint says into `run`; raises UserError if its state.json is damaged, or a size has changed."""
    state = Fields(files.read_json(folder / "state.json"), str(folder / "state.json"))
    sizes = state.inside("checksums", dict)
    for name in ("model.safetensors", "optimizer.pt"):
        with files.open_regular(folder / name) as opened:
            size, recorded = os.fstat(opened.fileno()).st_size, read_record(sizes, name).bytes
        require(recorded in (size, LARGEST), f"{folder / name} is damaged: it has {size:,} bytes, not {recorded:,}.")
    run.step, run.parameters = step, count_parameters(folder / "model.safetensors")
    val_loss = state.number_or_nan("val_loss") if state.has("val_loss") else math.nan
    run.val_loss = None if math.isnan(val_loss) else val_loss
    run.state = "unfinished" if "tokens" in state else "imported"


def count_parameters(file: Path) -> int:
    """Numbers in a safetensors file, whose header is a length of 8 bytes and so much JSON; raises UserError."""
    with files.open_regular(file) as opened, files.reading(file):
        length = int.from_bytes(opened.read(8), "little")
        require(length <= files.MAX_JSON, f"{file} is damaged: its header is too long.")
        header = Fields(parse_json(opened.read(length), str(file)), str(file))
    shapes = (header.inside(name, dict).inside("shape", list, 0, 8) for name in header if name != "__metadata__")
    return sum(math.prod(shape.whole(place) for place in shape) for shape in shapes)


def read_bits(run: Listed, text: Fields) -> None:
    """Put the loss in bits per byte into `run`, by the formula of `training.state.bits_per_byte`; `text`: data.json."""
    if run.val_loss is not None and text.has("val_bytes"):
        tokens, count = text.whole("val_tokens", 1), text.whole("val_bytes", 1)
        run.val_bits_per_byte = run.val_loss * (tokens - 1) / count / math.log(2)


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder; links count as themselves."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # removed meanwhile
                total += Path(where, name).lstat().st_size
    return total


def faults_of(path: Path) -> list[str]:
    """A sentence for each file of a run that is not as it was written: settings, tokenizer, checkpoints, logs."""
    from minitx.run import checkpoints
    from minitx.run.folder import Run
    from minitx.run.logs import first_checksum

    run, faults = Run(path), list[str]()
    for check in (run.check_config, run.tokenizer):
        with noting(faults):
            check()
    whole = None
    for name in checkpoints.names(path):
        with noting(faults):
            whole = checkpoints.read_checkpoint(path / checkpoints.FOLDER / name)
    for name, before in (whole.logs if whole else {}).items():
        with noting(faults):
            is_whole = first_checksum(path / name, before.bytes) == before.sha256
            require(is_whole, f"{path / name} has changed since the newest checkpoint.")
    return faults
