"""A training run under way: model, optimizers, data, progress; everything that a checkpoint saves and restores."""

import math
import time
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from minitx.config import Config
from minitx.data.batches import Batches, dropout_of
from minitx.data.prepare import Prepared
from minitx.data.stream import Stream, merged
from minitx.model import Transformer
from minitx.run import checkpoints, weights
from minitx.run.checkpoints import Checkpoint, Progress
from minitx.run.folder import Run
from minitx.system.errors import UserError
from minitx.system.runtime import Runtime
from minitx.training.averaging import WeightAverage
from minitx.training.optim import build_optimizers, learning_rate_factor
from minitx.training.parallel import ALONE, Group


class Due(NamedTuple):
    """What is due after a step."""

    metrics: bool
    evaluation: bool
    checkpoint: bool
    heads: bool
    snapshot: bool
    sample: bool


def due_after(step: int, config: Config) -> Due:
    """What is due after `step`; after the last step, everything that is on."""
    log, train = config.log, config.train

    def due(every: int) -> bool:
        return bool(every) and (step % every == 0 or step == train.steps)

    return Due(
        metrics=due(log.every) or step == 1,
        evaluation=due(train.eval_every),
        checkpoint=due(train.checkpoint_every),
        heads=due(log.heads_every),
        snapshot=due(log.snapshots_every),
        sample=due(train.sample_every),
    )


class Training:
    """A run under way. `restore` takes up a checkpoint, `save` writes one."""

    def __init__(
        self,
        config: Config,
        run: Run,
        prepared: Prepared,
        runtime: Runtime,
        model: Transformer,
        group: Group = ALONE,
    ) -> None:
        self.config, self.run, self.prepared, self.runtime, self.model = config, run, prepared, runtime, model
        self.group, self.learner = group, model
        if group.settings.checkpoint_activations or group.is_sharded:
            self.divide()
        self.optimizers = build_optimizers(model, config.train, runtime.dtype, group)
        self.average = WeightAverage(list(self.learner.parameters()), config.train, group)
        own = (
            config.model.context_length,
            config.train.batch_size,
            config.seed,
            runtime.device,
            group.share(config.train),
            dropout_of(model.config),
        )
        is_streamed = config.data.streaming == "train"
        self.batches = Stream(config.data, prepared, *own) if is_streamed else Batches(prepared.train, *own)
        self.progress, self.logged = Progress(), Progress()  # now, and at the last line of metrics.jsonl
        self.saved_step = 0
        self.weights_steps = weights.steps_to_keep(config, sum(p.numel() for p in model.parameters()))
        self.began: float | None = None  # when the clock was started, while it runs

    def divide(self) -> None:
        """Divide what training holds: activations over time, and with `parallel.shard` all else over processes.

        `learner` is then the divided model, and `model` a whole copy in the first process.
        """
        from minitx.training import sharding

        if self.group.settings.checkpoint_activations:
            sharding.recompute_blocks(self.learner)
        if self.group.is_sharded:
            sharding.shard(self.learner, self.group, self.runtime.device)
            if self.group.is_first:
                self.model = Transformer(self.learner.config, self.learner.vocab_size).to(self.runtime.device)

    @torch.no_grad()
    def refresh(self) -> None:
        """Give `model` the weights of the learner, if it is a copy."""
        if self.group.is_sharded:
            copies = dict(self.model.named_parameters())
            for name, parameter in self.learner.named_parameters():
                weights = self.group.whole(parameter)
                if self.model is not self.learner:
                    copies[name].copy_(weights)

    @property
    def step(self) -> int:
        return self.progress.step

    def advance(self) -> None:
        """Count one step more; the last steps' weights are averaged."""
        train = self.config.train
        self.progress.step += 1
        self.progress.tokens += train.batch_size * train.grad_accum * self.config.model.context_length
        self.average.add(self.step)

    def start_clock(self) -> None:
        """Start the clock: training begins, or goes on."""
        self.began = time.perf_counter()

    def stop_clock(self) -> None:
        """Stop the clock, if it runs, and count the seconds since `start_clock`."""
        if self.began is not None:
            self.progress.seconds += time.perf_counter() - self.began
        self.began = None

    def metrics(self, loss: Tensor, norm: Tensor) -> dict[str, Any]:
        """The line of metrics.jsonl for the last step, without validation; speed is since the line before."""
        progress, logged, train = self.progress, self.logged, self.config.train
        return {
            "step": progress.step,
            "tokens": progress.tokens,
            "seconds": progress.seconds,
            "train_loss": float(loss),
            "val_loss": None,
            "val_bits_per_byte": None,
            "learning_rate": learning_rate_factor(progress.step - 1, train) * train.learning_rate,
            "grad_norm": float(norm),
            "tokens_per_second": (progress.tokens - logged.tokens) / (progress.seconds - logged.seconds),
        }

    def evaluated(self, val_loss: float) -> bool:
        """Keep a validation loss, nats per token; whether it is the best so far."""
        self.progress.val_loss, self.progress.unevaluated = val_loss, None
        is_best = val_loss < self.progress.best_val_loss
        if is_best:
            self.progress.best_val_loss, self.progress.best_step = val_loss, self.step
        return is_best

    def save(self, *, best: bool) -> None:
        """Write a checkpoint from which `restore` goes on exactly here, with any number of processes."""
        optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
        for state in optimizers:
            state["state"] = {
                number: {name: self.group.whole(value) for name, value in values.items()}
                for number, values in state["state"].items()
            }
        place = merged(self.group.gathered(self.batches.state()))
        state = {"optimizers": optimizers, "average": self.average.state_dict()}
        self.group.first(partial(self.write, state, place, best=best))
        self.saved_step = self.step

    def write(self, state: dict[str, Any], place: dict[str, Any], *, best: bool) -> None:
        """Write the checkpoint, given `state` of optimizers and average, and the place in the training text."""
        generators = {"random_cpu": torch.get_rng_state()}
        if self.runtime.device.type == "cuda":
            generators["random_cuda"] = torch.cuda.get_rng_state(self.runtime.device)
        progress = {**vars(self.progress), "batches": place}
        keep = self.config.train.keep_checkpoints
        checkpoints.save(self.run.path, self.model, state | generators, progress, best=best, keep=keep)

    def keep_weights(self) -> None:
        """Keep the weights alone, if this is one of the steps for it."""
        if self.step in self.weights_steps and self.group.is_first:
            weights.keep(self.run.path, self.step, self.model, self.run.about("id") or "")

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put everything back as `save` left it; raises UserError where the checkpoint holds something else."""
        if self.group.is_sharded:
            whole = Transformer(self.learner.config, self.learner.vocab_size)
            checkpoint.load_weights(whole)
            with torch.no_grad():
                for parameter, weights in zip(self.learner.parameters(), whole.parameters(), strict=True):
                    parameter.copy_(self.group.part_like(weights, parameter))
        else:
            checkpoint.load_weights(self.model)
        saved = checkpoint.load_optimizer()
        try:
            drop_lost_norms(saved["optimizers"][-1], self.model)
            for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
                numbers = iter([number for group in state["param_groups"] for number in group["params"]])
                groups = optimizer.param_groups  # perhaps with another learning rate, or cut more finely
                asked = [{**group, "params": list(islice(numbers, len(group["params"])))} for group in groups]
                if next(numbers, None) is not None:
                    raise ValueError("its optimizer has more parameters")
                optimizer.load_state_dict({**state, "param_groups": asked})
                for tensor, kept in optimizer.state.items():  # fused AdamW writes past the end of a smaller one
                    if any(value.shape not in ((), tensor.shape) for value in kept.values()):
                        raise ValueError("its optimizer state has other shapes")
                    kept.update({name: self.group.part_like(value, tensor) for name, value in kept.items()})
            if "average" in saved:  # not in older checkpoints
                self.average.load_state_dict(saved["average"])
            torch.set_rng_state(saved["random_cpu"])
            if self.runtime.device.type == "cuda" and "random_cuda" in saved:
                torch.cuda.set_rng_state(saved["random_cuda"], self.runtime.device)
        except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, OverflowError) as error:
            raise UserError(
                f"The checkpoint {checkpoint.path} does not fit this run ({type(error).__name__}: {error}): it was "
                "written with other settings, or not by minitx."
            ) from error
        self.restore_batches(checkpoint)
        self.progress, self.logged, self.saved_step = checkpoint.progress, replace(checkpoint.progress), checkpoint.step

    def restore_batches(self, checkpoint: Checkpoint) -> None:
        """Go on in the training text where `checkpoint` was; raises UserError where it was nowhere in this text."""
        file = checkpoint.path / checkpoints.STATE_FILE
        if checkpoint.batches is None:
            raise UserError(f"{file} does not fit this run: it has no place in a training text.")
        try:
            self.batches.restore(checkpoint.batches)
        except UserError as error:
            raise UserError(f"{file} does not fit this run: {error}") from error


def drop_lost_norms(adamw: dict[str, Any], model: Transformer) -> None:
    """Drop query-key norms of layers without heads, as minitx 0.1 saved them: after the layer's first norm."""
    saved = adamw["param_groups"][-1]["params"]
    norms = [name for name, parameter in model.named_parameters() if parameter.dim() < 2]
    headless = [layer for layer, block in enumerate(model.blocks) if block.attention is None]
    if len(saved) == len(norms) + 2 * len(headless):
        for layer in headless:
            first = norms.index(f"blocks.{layer}.attention_norm.weight") + 1
            for number in saved[first : first + 2]:
                adamw["state"].pop(number, None)
            del saved[first : first + 2]


def bits_per_byte(nats_per_token: float, n_tokens: int, n_bytes: int) -> float:
    """The loss on a text of `n_tokens` in bits for each of its `n_bytes` bytes of UTF-8, comparable over tokenizers."""
    return nats_per_token * (n_tokens - 1) / n_bytes / math.log(2)
