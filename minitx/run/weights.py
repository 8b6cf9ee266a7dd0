"""Weights alone, of steps spread over the whole run, so that the Attention tab can run a text through any of them.

    runs/NAME/weights/step-000100.safetensors = the parameters by name in float16, and in its metadata step, run, sha256

A checkpoint has all that resuming needs, and a run keeps only the last few. Of these files many fit. Each is written as
a whole, and refused where it was damaged, renamed or copied from another run.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from minitx.config import Config
from minitx.model import Transformer
from minitx.run import checkpoints
from minitx.system import files
from minitx.system.errors import UserError, require
from minitx.system.fields import Fields, parse_json
from minitx.system.text import warn

FOLDER, SUFFIX = "weights", ".safetensors"
MAX_TOTAL_BYTES = 100_000_000
"""Of all such files of a run; of a larger model, fewer steps are kept."""


def steps_to_keep(config: Config, parameters: int) -> list[int]:
    """The steps after which the weights of a model with so many parameters are kept: evenly spread snapshots' steps."""
    every, last = config.log.snapshots_every, config.train.steps
    count = min(config.log.keep_weights, MAX_TOTAL_BYTES // (2 * parameters))
    if not every or not count:
        return []
    shown = [*range(every, last, every), last]
    return sorted({shown[place * (len(shown) - 1) // max(1, count - 1)] for place in range(count)})


def steps(run: Path) -> list[int]:
    """The steps whose weights are kept, whole or not, in order."""
    return files.steps_in((file.name for file in (run / FOLDER).glob(f"*{SUFFIX}")), SUFFIX)


def path(run: Path, step: int) -> Path:
    """Where the weights of `step` lie."""
    return run / FOLDER / f"{files.step_name(step)}{SUFFIX}"


def keep(run: Path, step: int, model: Transformer, run_id: str) -> None:
    """Write the weights of `model`. Values that float16 cannot hold get a warning, and nothing is written."""
    weights = {name: p.detach().to("cpu", torch.float16).contiguous() for name, p in model.named_parameters()}
    if not all(bool(weight.isfinite().all()) for weight in weights.values()):
        warn(f"The weights of step {step} are too large for float16, so they are not kept for the Attention tab.")
        return
    file = path(run, step)
    file.parent.mkdir(exist_ok=True)
    about = {"step": str(step), "run": run_id, "sha256": digest(weights, step, run_id)}
    files.write_atomically(file, save(weights, about))


def load_into(model: Transformer, run: Path, step: int, run_id: str) -> None:
    """Copy the weights of `step` into `model`; raises UserError unless they are whole, of this step and of this run."""
    file = path(run, step)
    content = files.read_file(file, MAX_TOTAL_BYTES + 2**20)
    length = int.from_bytes(content[:8], "little")
    require(8 + length <= len(content), f"{file} is damaged: it is cut short.")
    header = Fields(parse_json(content[8 : 8 + length], str(file)), str(file))
    about = header.inside("__metadata__", dict)
    try:
        weights = load(content)
    except (SafetensorError, LookupError, ValueError, TypeError) as error:
        raise UserError(f"{file} is damaged: it cannot be read as weights.") from error
    step_there, run_there = about.text("step"), about.text("run")
    is_whole = about.text("sha256") == digest(weights, step_there, run_there)
    require(is_whole, f"{file} is damaged: its weights do not fit their checksum.")
    require(step_there == str(step), f"{file} holds the weights of step {step_there}: it was renamed.")
    require(run_there == run_id, f"{file} is of another run: it was copied here.")
    checkpoints.copy_weights(weights, model, file)


def digest(weights: dict[str, Tensor], step: Any, run_id: str) -> str:
    """SHA-256 of the names, shapes and values of the weights, of the step and of the run."""
    found = hashlib.sha256(f"{step} {run_id}".encode("utf-8", "replace"))
    for name in sorted(weights):
        found.update(f"\n{name} {weights[name].dtype} {tuple(weights[name].shape)} ".encode("utf-8", "replace"))
        found.update(weights[name].view(torch.uint8).numpy().data)
    return found.hexdigest()


def forget_after(run: Path, step: int, planned: list[int]) -> None:
    """Remove the weights after `step`, which a resumed run writes again, and drafts of killed processes.

    planned: `steps_to_keep`; where a resumed run is to train more steps, those of earlier ones are thinned out.
    """
    require(not (run / FOLDER).is_symlink(), f"{run / FOLDER} is a link: put a folder in its place.")
    files.remove_drafts(run / FOLDER, rf"step-[0-9]+{SUFFIX}(?:-old)?")
    kept = [other for other in steps(run) if other <= step]
    wanted = {min(kept, key=lambda other: abs(other - target)) for target in planned if target <= step and kept}
    wanted = wanted if planned else {*kept}  # keeping more was turned off
    for other in steps(run):
        if other not in wanted:
            files.remove(path(run, other))
