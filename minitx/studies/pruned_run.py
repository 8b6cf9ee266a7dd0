"""`minitx prune`: choose heads, write the model without them as a run folder, measure what that costs and saves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from minitx.attention import HeadAccess
from minitx.config import Config
from minitx.data.prepare import Prepared
from minitx.fast.compiler import spare_the_compiler
from minitx.model import Transformer
from minitx.model_size import cache_bytes_per_token
from minitx.run.checkpoints import Checkpoint
from minitx.run.folder import Run
from minitx.run.text import prepared_text
from minitx.studies import pruning
from minitx.studies.pruning import Head
from minitx.studies.pruning_curve import measure_curve, write_curve
from minitx.system.errors import require
from minitx.system.runtime import Runtime, choose_runtime
from minitx.system.text import markdown_table
from minitx.system.timing import alternate
from minitx.training.divergence import check_weights
from minitx.training.loop import evaluate
from minitx.training.report import Report
from minitx.training.session import train
from minitx.training.state import Progress, Training, bits_per_byte, due_after


@dataclass(frozen=True)
class PruneOptions:
    """The command line of `minitx prune`; its --help explains every option."""

    run: str
    checkpoint: str
    heads: list[Head] | None
    keep_fraction: float | None
    by: str
    out: str | None
    finetune_steps: int
    curve: bool
    random_orders: int
    tokens: int
    seed: int


@dataclass(frozen=True)
class Original:
    """The run that is pruned, loaded."""

    run: Run
    config: Config
    runtime: Runtime
    checkpoint: Checkpoint
    model: Transformer
    prepared: Prepared


def prune_run(options: PruneOptions) -> int:
    """Do what `minitx prune` was asked to do; the exit status."""
    spare_the_compiler()
    run = Run.find(options.run)
    if options.heads is not None:
        pruning.pruned_config(run.config().model, options.heads)  # refuse before anything takes time
    original = load_original(run, options.checkpoint)
    model, val, batch_size = original.model, original.prepared.val, original.config.train.batch_size
    heads, half = pruning.heads_of(model.config), len(val) // 2
    require(half >= 2, "The validation text is too short to choose heads on one half and measure on the other.")
    first_half, second_half = val[:half][: options.tokens], val[half:][: options.tokens]
    with (
        pruning.removal_loss(model, first_half, batch_size, "choosing heads") as choosing_loss,
        pruning.removal_loss(model, second_half, batch_size, "measuring the curve") as curve_loss,
    ):
        gone = heads_to_remove(options, heads, choosing_loss)
        seeds = range(options.seed, options.seed + options.random_orders)
        curve = measure_curve(heads, choosing_loss, curve_loss, seeds) if options.curve else None
    made = None
    if gone:
        smaller = pruning.prune(model, gone)
        made = write_run(options.out or f"{run.path}-pruned", original, smaller)
        report_pruning(original, made, smaller, gone)
    if curve:
        write_curve(curve, (made or run).path, run.path.name)
    if made and options.finetune_steps:
        longer = dataclasses.replace(original.config.train, steps=original.checkpoint.step + options.finetune_steps)
        return train(dataclasses.replace(made.config(), train=longer), resume=str(made.path))
    return 0


def load_original(run: Run, checkpoint_name: str) -> Original:
    """Load a run, its model and its text; raises UserError where the text has changed."""
    config = run.config()
    runtime = choose_runtime(config.device, config.dtype, config.compile, config.threads)
    checkpoint = run.checkpoint(checkpoint_name)
    model, _ = run.load_model(checkpoint_name, runtime.device)
    prepared = prepared_text(config, run, "prune where it is unchanged")
    return Original(run, config, runtime, checkpoint, model, prepared)


def heads_to_remove(options: PruneOptions, heads: list[Head], choosing_loss: pruning.LossWithout) -> list[Head] | None:
    """The heads that the options name, or all but a share of `heads`; None where only the curve is wanted."""
    if options.keep_fraction is None:
        return options.heads
    count = len(heads) - max(1, round(options.keep_fraction * len(heads)))
    require(count > 0, f"--keep_fraction {options.keep_fraction} of {len(heads)} heads is all of them: keep fewer.")
    return pruning.choose_heads(heads, count, options.by, options.seed, choosing_loss)


def write_run(out: str, original: Original, smaller: Transformer) -> Run:
    """A whole run folder of the pruned model, at the step of the checkpoint that was pruned; it can be resumed.

    Optimizers start afresh. The metrics begin with the loss after pruning.
    """
    config, runtime = original.config, original.runtime
    checkpoint, prepared = original.checkpoint, original.prepared
    config = dataclasses.replace(config, model=smaller.config)
    made = Run.create(out, config, prepared.tokenizer, prepared.describe())
    config = dataclasses.replace(config, out=str(made.path))
    loss = evaluate(smaller, prepared.val, config.train.batch_size, runtime)
    known = {name: checkpoint.state[name] for name in ("tokens", "seconds") if name in checkpoint.state}
    progress = Progress(checkpoint.step, **known, val_loss=loss, best_val_loss=loss, best_step=checkpoint.step)
    training = Training(config, made, prepared, runtime, smaller)
    training.progress = progress
    if "batches" in checkpoint.state:  # an imported run has none
        training.batches.restore(checkpoint.state["batches"])
    torch.manual_seed(config.seed)
    measured = {"val_loss": loss, "val_bits_per_byte": bits_per_byte(loss, len(prepared.val), prepared.val_bytes)}
    line = {"step": progress.step, "tokens": progress.tokens, "seconds": progress.seconds, "train_loss": None}
    made.append_metrics({**line, **measured, "learning_rate": None, "grad_norm": None, "tokens_per_second": None})
    with Report(training, start_step=0) as report:
        report.writer().scalars(progress.step, measured)
        report.heads(due_after(config.train.steps, config))
        report.summarise()
    check_weights(training)
    training.save(best=True)
    return made


def report_pruning(original: Original, made: Run, smaller: Transformer, gone: list[Head]) -> None:
    """Measure the model before and after, print the figures and write them into pruning.json."""
    run, checkpoint, val, runtime = original.run, original.checkpoint, original.prepared.val, original.runtime
    models = (original.model, smaller)
    window = torch.from_numpy(val[: smaller.config.context_length].astype("int64"))[None].to(runtime.device)
    whole_loss = evaluate(original.model, val, original.config.train.batch_size, runtime)
    losses = (whole_loss, made.read_json("summary.json")["val_loss"])
    before, after = (
        {
            "parameters": sum(p.numel() for p in model.parameters()),
            "validation loss (nats per token)": loss,
            "forward tokens per second": speed,
            "cache bytes per token": cache_bytes_per_token(model.config),
        }
        for model, loss, speed in zip(models, losses, forward_speeds(models, window), strict=True)
    )
    removed, difference = pruning.head_names(sorted(gone)), masked_difference(*models, gone, window)
    content = {
        "from": str(run.path),
        "checkpoint": checkpoint.path.name,
        "removed": removed,
        "largest_logit_difference_to_masked": difference,
        "before": before,
        "after": after,
    }
    made.write_json("pruning.json", content)
    rows = []
    for name in before:
        form = ",.3f" if "loss" in name else ",.0f"
        rows.append([name, f"{before[name]:{form}}", f"{after[name]:{form}}"])
    print(
        f"\nremoved {', '.join(removed)} of {run.path} ({checkpoint.path.name})\n"
        f"\n{markdown_table(['', 'before', 'after'], rows)}\n"
        f"\nLogits differ from those of the masked model by at most {difference:.1g}."
        f'\nThe pruned run is in {made.path}. Next:\n  python generate.py {made.path} --prompt "The"\n'
        f"  python train.py --resume {made.path} --train.steps {checkpoint.step + 100}"
    )


def masked_difference(model: Transformer, smaller: Transformer, gone: list[Head], window: Tensor) -> float:
    """Largest difference in any logit between the pruned model and the whole one with its gates at 0."""
    gates = torch.ones(model.config.n_layer, model.config.n_head, device=window.device)
    for layer, head in gone:
        gates[layer, head] = 0
    with torch.inference_mode():
        return float((model(window, heads=HeadAccess(gates)) - smaller(window)).abs().max())


@torch.inference_mode()
def forward_speeds(models: Sequence[Transformer], window: Tensor) -> list[float]:
    """Tokens per second of every model's forward pass over `window` (1, seq): the median over turns."""
    calls = {str(i): partial(model, window) for i, model in enumerate(models)}
    timed = alternate(calls, repeats=15, seconds=math.inf, device=window.device, shortest=0.01)
    return [window.numel() / timing.median for timing in timed.values()]
