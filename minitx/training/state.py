"""What a run has to remember: progress and clock, saved to and restored from a checkpoint."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer

from minitx.config import Config
from minitx.data.batches import Batches
from minitx.model import Transformer
from minitx.run.checkpoints import Checkpoint
from minitx.run.folder import Run
from minitx.system.errors import UserError, require
from minitx.system.runtime import Runtime
from minitx.training.divergence import check_weights


class Clock:
    """Seconds spent between `start` and `stop`, added up."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.began = seconds, 0.0

    def start(self) -> None:
        self.began = time.perf_counter()

    def stop(self) -> float:
        self.seconds += time.perf_counter() - self.began
        return self.seconds


@dataclass
class Progress:
    """How far a run is: what a checkpoint keeps beside weights, optimizer and generator state."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    val_loss: float | None = None
    best_val_loss: float = math.inf
    best_step: int = 0
    skipped: int = 0
    """Bad steps that were left out."""
    unevaluated: list[float] | None = None
    """Loss and norm of a step that is trained, but whose evaluation was cut short and is to be done again."""


def save(
    run: Run,
    config: Config,
    model: Transformer,
    optimizers: list[Optimizer],
    batches: Batches,
    runtime: Runtime,
    progress: Progress,
    is_best: bool,
) -> None:
    """Write a checkpoint from which `restore` goes on exactly here; raises UserError rather than keep lost weights."""
    check_weights(model, progress.step, config, run)
    optimizer_state: dict[str, Any] = {
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "random_cpu": torch.get_rng_state(),
    }
    if runtime.device.type == "cuda":
        optimizer_state["random_cuda"] = torch.cuda.get_rng_state(runtime.device)
    state = {**vars(progress), "batches": batches.state()}
    run.save_checkpoint(model, optimizer_state, state, best=is_best, keep=config.train.keep_checkpoints)


def restore(
    checkpoint: Checkpoint, model: Transformer, optimizers: list[Optimizer], batches: Batches, runtime: Runtime
) -> Progress:
    """Put everything back as `save` found it; raises UserError where the checkpoint holds something else."""
    checkpoint.load_weights(model)
    saved = checkpoint.load_optimizer()
    try:
        for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
            asked = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
            optimizer.load_state_dict(state)
            for group, settings in zip(optimizer.param_groups, asked, strict=True):
                group.update(settings)  # a resumed run may be given another learning rate
        torch.set_rng_state(saved["random_cpu"])
        if runtime.device.type == "cuda" and "random_cuda" in saved:
            torch.cuda.set_rng_state(saved["random_cuda"], runtime.device)
        batches.restore(checkpoint.state["batches"])
        progress = Progress(**{name: checkpoint.state[name] for name in vars(Progress())})
        numbers = [progress.tokens, progress.seconds, progress.best_val_loss, *(progress.unevaluated or [])]
        require(all(isinstance(number, int | float) for number in numbers), f"{numbers} are not all numbers")
        return progress
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
        raise UserError(
            f"The checkpoint {checkpoint.path} does not fit this run ({type(error).__name__}: {error}): it was written "
            "with other settings, or not by minitx."
        ) from error
