"""Train a model: one step, one evaluation, and the loop around them.

The clock stops for everything that is not a training step, so that `seconds` and `tokens_per_second` measure training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from minitx.config import Config, TrainConfig
from minitx.data.batches import Batches, validation_windows
from minitx.data.prepare import Prepared
from minitx.model import Transformer, next_token_loss
from minitx.run.checkpoints import Checkpoint
from minitx.run.folder import Run
from minitx.system.runtime import Runtime
from minitx.system.signals import Stopped, StopRequest
from minitx.training.divergence import is_finite, record_bad_step
from minitx.training.optim import build_optimizers, learning_rate_factor, set_learning_rate
from minitx.training.report import Report
from minitx.training.state import Clock, Progress, restore, save

LossOf = Callable[[Tensor, Tensor], Tensor]


def training_loss(model: Callable[[Tensor], Tensor]) -> LossOf:
    """The model's loss in nats per token as a function of inputs and targets, each (batch, seq).

    Where a run compiles, it compiles this as a whole: the program never writes the logits to memory in float32.
    """
    return lambda inputs, targets: next_token_loss(model(inputs), targets)


def train_step(
    loss_of: LossOf,
    parameters: Sequence[Tensor],
    optimizers: list[Optimizer],
    batches: Batches,
    runtime: Runtime,
    config: TrainConfig,
) -> tuple[Tensor, Tensor]:
    """Make one update from `grad_accum` batches; return the mean loss in nats per token and the gradient's norm.

    With `skip_bad_steps` there is no update where either is not finite.
    """
    total = torch.zeros((), device=runtime.device)
    for _ in range(config.grad_accum):
        inputs, targets = map(runtime.move, batches.next())
        with runtime.autocast():
            loss = loss_of(inputs, targets) / config.grad_accum
        loss.backward()
        total += loss.detach()
    norm = torch.nn.utils.clip_grad_norm_(parameters, config.grad_clip or math.inf)
    is_good = not config.skip_bad_steps or is_finite(total, norm)
    for optimizer in optimizers:
        if is_good:
            optimizer.step()
        optimizer.zero_grad()
    return total, norm


@torch.inference_mode()
def evaluate(
    model: Transformer,
    tokens: NDArray[np.unsignedinteger],
    batch_size: int,
    runtime: Runtime,
    between: Callable[[], None] = lambda: None,
) -> float:
    """Mean loss in nats per token over all of `tokens`.

    Every token but the first is predicted once, from the tokens before it in its window of one context length.
    `between` is called before each batch and may end the evaluation by an exception.
    """
    training = model.training
    model.eval()
    total = torch.zeros((), dtype=torch.float64, device=runtime.device if runtime.device.type != "mps" else "cpu")
    for inputs, targets in validation_windows(tokens, model.config.context_length, batch_size):
        between()
        with runtime.autocast():
            logits = model(inputs.to(runtime.device))
        total += next_token_loss(logits, targets.to(runtime.device), reduction="sum").to(total)
    model.train(training)
    return float(total) / (len(tokens) - 1)


def bits_per_byte(nats_per_token: float, n_tokens: int, n_bytes: int) -> float:
    """The loss on a text of `n_tokens` in bits for each of its `n_bytes` bytes of UTF-8, comparable over tokenizers."""
    return nats_per_token * (n_tokens - 1) / n_bytes / math.log(2)


def fit(config: Config, run: Run, prepared: Prepared, runtime: Runtime, checkpoint: Checkpoint | None = None) -> int:
    """Train to the last step, from the start or from `checkpoint`; the number of the signal that ended it, or 0."""
    torch.manual_seed(config.seed)
    model = Transformer(config.model, prepared.tokenizer.vocab_size).to(runtime.device)
    parameters = list(model.parameters())
    optimizers = build_optimizers(model, config.train)
    batches = Batches(prepared.train, config.model.context_length, config.train.batch_size, config.seed, runtime.device)
    progress = Progress()
    if checkpoint is not None:
        progress = restore(checkpoint, model, optimizers, batches, runtime)
    loss_of = runtime.compiled(training_loss(model))
    tokens_per_step = config.train.batch_size * config.train.grad_accum * config.model.context_length

    clock = Clock(progress.seconds)
    logged_tokens, logged_seconds = progress.tokens, progress.seconds
    saved_step = progress.step
    with StopRequest() as stop, Report(config, run, prepared, runtime, model, progress.step) as report:
        clock.start()
        while (progress.step < config.train.steps or progress.unevaluated) and not stop.signal:
            if progress.unevaluated:
                (loss, norm), drawn = map(torch.tensor, progress.unevaluated), None
                progress.unevaluated = None
            else:
                set_learning_rate(optimizers, learning_rate_factor(progress.step, config.train))
                drawn = batches.state()
                loss, norm = train_step(loss_of, parameters, optimizers, batches, runtime, config.train)
                progress.step += 1
                progress.tokens += tokens_per_step
                report.advance()

            step, last = progress.step, progress.step == config.train.steps
            is_due = {
                "metrics": step % config.log.every == 0 or step == 1 or last,
                "evaluation": step % config.train.eval_every == 0 or last,
                "checkpoint": step % config.train.checkpoint_every == 0 or last,
            }
            due = any(is_due.values()) or report.is_due(step)
            looks = runtime.device.type == "cpu" or due or config.train.skip_bad_steps
            if drawn and looks and not is_finite(loss, norm):  # looking waits for a GPU
                progress.skipped += 1
                skip = progress.skipped <= config.train.skip_bad_steps
                record = record_bad_step(run, prepared.tokenizer, batches, drawn, config, step, loss, norm, skip=skip)
                report.skipped(step, record)
            if not due:
                continue
            progress.seconds = clock.stop()
            line: dict[str, Any] = {
                "step": step,
                "tokens": progress.tokens,
                "seconds": progress.seconds,
                "train_loss": float(loss),
                "val_loss": None,
                "val_bits_per_byte": None,
                "learning_rate": learning_rate_factor(step - 1, config.train) * config.train.learning_rate,
                "grad_norm": float(norm),
                "tokens_per_second": (progress.tokens - logged_tokens) / (progress.seconds - logged_seconds),
            }
            is_best = False
            if is_due["evaluation"]:
                try:
                    val_loss = evaluate(model, prepared.val, config.train.batch_size, runtime, stop.check)
                except Stopped:
                    progress.unevaluated = [float(loss), float(norm)]
                    saved_step = -1
                    break
                progress.val_loss = line["val_loss"] = val_loss
                line["val_bits_per_byte"] = bits_per_byte(val_loss, len(prepared.val), prepared.val_bytes)
                is_best = val_loss < progress.best_val_loss
                if is_best:
                    progress.best_val_loss, progress.best_step = val_loss, step
            if is_due["metrics"] or is_due["evaluation"]:
                report.metrics(line)
                logged_tokens, logged_seconds = progress.tokens, progress.seconds
            report.heads(step, last)
            report.sample(step, last)
            if is_due["checkpoint"] or is_best:
                report.flush()  # no checkpoint is ahead of its curves
                save(run, config, model, optimizers, batches, runtime, progress, is_best)
                saved_step = step
            clock.start()
        if stop.signal and saved_step != progress.step:
            report.flush()
            save(run, config, model, optimizers, batches, runtime, progress, False)
        if not stop.signal:
            report.finish(progress)
    return stop.signal or 0
