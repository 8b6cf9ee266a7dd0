"""When training diverges: record the bad batch, and say the likely cause and the way back."""

import math
from pathlib import Path

from torch import Tensor

from minitx.config import Config
from minitx.run import checkpoints
from minitx.run.folder import Run
from minitx.system.errors import UserError
from minitx.system.program import command
from minitx.training.state import Training


def is_finite(loss: Tensor, norm: Tensor) -> bool:
    """Whether neither is NaN or infinite; waits for a GPU."""
    return math.isfinite(float(loss)) and math.isfinite(float(norm))


def record_bad_step(training: Training, position: dict[str, int], loss: Tensor, norm: Tensor) -> Path:
    """Write diverged-STEP.json: the loss, the gradient's norm, and the texts and tokens drawn since `position`.

    Raises UserError once more steps are bad than `train.skip_bad_steps` allows.
    """
    config, run, batches, step = training.config, training.run, training.batches, training.step
    after = batches.state()
    batches.restore(position)
    rows = batches.rows().tolist()
    batches.restore(after)
    name = f"diverged-{step:06d}.json"
    sequences = [{"text": training.prepared.tokenizer.decode(row), "tokens": row} for row in rows]
    run.write_json(name, {"step": step, "loss": str(float(loss)), "grad_norm": str(float(norm)), "batch": sequences})
    if training.progress.skipped > config.train.skip_bad_steps:
        raise UserError(
            f"The loss is {float(loss)} and its gradient {float(norm)} at step {step}: {likely_cause(step, config)}. "
            f"Its batch is in {run.path / name}. {way_back(run)}"
        )
    return run.path / name


def check_weights(training: Training) -> None:
    """Raise `UserError` when a weight is not finite, so that no checkpoint ever keeps such a model."""
    step, run = training.step, training.run
    for name, parameter in training.model.named_parameters():
        if not bool(parameter.isfinite().all()):
            cause = likely_cause(step, training.config)
            raise UserError(f"{name} is not finite after step {step}: {cause}. {way_back(run)}")


def likely_cause(step: int, config: Config) -> str:
    """The most likely cause of divergence at `step`, and what to try."""
    train = config.train
    if step == 1 and config.dtype == "bfloat16":
        return "the first forward pass overflows, so the precision is probably too low; set dtype to float32"
    cause = "the learning rate is probably too high; halve train.learning_rate and train.muon_learning_rate"
    if step <= 2 * train.warmup_steps + 1:
        cause += ", or lengthen train.warmup_steps"
    if not train.grad_clip:
        cause += ", or set train.grad_clip to 1, for gradients are not clipped"
    return cause


def way_back(run: Run) -> str:
    """The newest checkpoint, and the command that goes on from it."""
    names = checkpoints.names(run.path)
    if not names:
        return "There is no checkpoint yet: begin again."
    resume = f"{command('train')} --resume {run.path}"
    return f"The checkpoint {names[-1]} is as it was: go on from it with {resume} and the changed settings."
