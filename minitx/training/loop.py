"""Train a model: one step, one evaluation, and the loop around them.

The clock stops for everything that is not a training step, so that `seconds` and `tokens_per_second` measure training.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim import Optimizer

from minitx.attention import HeadAccess
from minitx.config import TrainConfig
from minitx.data.batches import Batches, validation_windows
from minitx.model import Transformer, next_token_loss
from minitx.system.runtime import Runtime
from minitx.system.signals import Stopped, StopRequest
from minitx.training.divergence import check_weights, is_finite, record_bad_step
from minitx.training.optim import learning_rate_factor, set_learning_rate
from minitx.training.parallel import ALONE, Group
from minitx.training.reduction import reduction
from minitx.training.report import Report, report_on
from minitx.training.state import Training, bits_per_byte, due_after

LossOf = Callable[..., Tensor]


def training_loss(model: Callable[..., Tensor]) -> LossOf:
    """The model's loss in nats per token as a function of a batch.

    With torch.compile, model and loss are one program, which never stores the logits in float32.
    """
    return lambda inputs, targets, kept=None: next_token_loss(model(inputs, kept=kept), targets)


def train_step(
    loss_of: LossOf,
    parameters: Sequence[Tensor],
    optimizers: list[Optimizer],
    batches: Batches,
    runtime: Runtime,
    config: TrainConfig,
    group: Group = ALONE,
) -> tuple[Tensor, Tensor]:
    """Make one update from the rows of all processes; return their mean loss in nats per token and the gradient's norm.

    With `skip_bad_steps`, an update is left out if either is not finite.
    """
    share, sums = group.share(config), reduction(group, parameters, runtime.device)
    for _ in range(share.parts):
        batch = tuple(map(runtime.move, batches.next()))
        with runtime.autocast():
            loss = loss_of(*batch) * (len(batch[0]) / share.rows)
        loss.backward()
        sums.add(loss)
    total = sums.finish()
    norm = group.whole(torch.nn.utils.clip_grad_norm_(parameters, config.grad_clip or math.inf))
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
    heads: HeadAccess | None = None,
    group: Group = ALONE,
) -> float:
    """Mean loss in nats per token over all of `tokens`.

    Every token but the first is predicted once, from the tokens before it in its window of one context length.
    `between` is called before each batch and may raise to stop the evaluation. `heads` may close gates.
    """
    sums: list[Tensor] = []
    windows = validation_windows(tokens, model.config.context_length, batch_size)
    for (inputs, targets), counts in group.shared_out(windows):
        between()
        with runtime.autocast():
            logits = model(inputs.to(runtime.device), heads=heads)
        if counts:
            sums.append(next_token_loss(logits, targets.to(runtime.device), reduction="sum"))
    return group.sum_in_order([float(loss) for loss in sums]) / (len(tokens) - 1)


def fit(training: Training) -> int:
    """Train to the last step, from where `training` is; the number of the signal that ended it, or 0."""
    config, runtime, model = training.config, training.runtime, training.learner
    loss_of, parameters = runtime.compiled(training_loss(model)), list(model.parameters())
    optimizers, batches, group = training.optimizers, training.batches, training.group
    # On a GPU a check makes the CPU wait.
    always_check = runtime.device.type == "cpu" or config.train.skip_bad_steps > 0

    with StopRequest() as stop, report_on(training) as report:
        training.start_clock()
        if training.progress.unevaluated:
            after_step(training, report, stop, *torch.tensor(training.progress.unevaluated))
        while training.step < config.train.steps and not group.stopped(stop):
            set_learning_rate(optimizers, learning_rate_factor(training.step, config.train))
            position = batches.state()
            loss, norm = train_step(loss_of, parameters, optimizers, batches, runtime, config.train, group)
            training.advance()
            report.advance()
            due = any(due_after(training.step, config))
            if (due or always_check) and not is_finite(loss, norm):
                training.progress.skipped += 1
                report.skipped(group.first(partial(record_bad_step, training, position, loss, norm)))
            if due:
                after_step(training, report, stop, loss, norm)
        if not stop.signal:
            report.finish()
        elif training.saved_step != training.step:
            save(training, report, best=False)
    return stop.signal or 0


def after_step(training: Training, report: Report, stop: StopRequest, loss: Tensor, norm: Tensor) -> None:
    """Do what is due after the last step: evaluate, report, save. Meanwhile the clock stands still."""
    training.stop_clock()
    due, prepared, group = due_after(training.step, training.config), training.prepared, training.group
    line, is_best = training.metrics(loss, norm), False
    if due.evaluation:
        try:
            size, check = training.config.train.batch_size, partial(group.check, stop)
            val_loss = evaluate(training.learner, prepared.val, size, training.runtime, check, group=group)
        except Stopped:
            training.progress.unevaluated, training.saved_step = [float(loss), float(norm)], -1  # save it again
            return
        is_best = training.evaluated(val_loss)
        line["val_loss"] = val_loss
        line["val_bits_per_byte"] = bits_per_byte(val_loss, len(prepared.val), prepared.val_bytes)
    training.refresh()
    report.step(line, due)
    training.keep_weights()
    if due.checkpoint or is_best:
        save(training, report, best=is_best)
    training.start_clock()


def save(training: Training, report: Report, *, best: bool) -> None:
    """Write a checkpoint; raises UserError rather than keep weights that are not finite."""
    training.stop_clock()
    report.flush()
    training.refresh()
    training.group.first(partial(check_weights, training))
    training.save(best=best)
