"""`minitx prune`: choose heads, write the model without them as a run folder, measure what that costs and saves."""

import dataclasses
import math
from functools import partial

import torch
from torch import Tensor

from minitx.fast.compiler import spare_the_compiler
from minitx.model import Transformer
from minitx.model_size import cache_bytes_per_token
from minitx.run.checkpoints import Checkpoint, Progress
from minitx.run.folder import Run
from minitx.run.text import prepared_text
from minitx.studies import pruning
from minitx.studies.pruning import Head
from minitx.studies.pruning_curve import measure_curve, write_curve
from minitx.system.errors import require
from minitx.system.program import command
from minitx.system.runtime import choose_runtime
from minitx.system.text import markdown_table
from minitx.system.timing import alternate
from minitx.training.divergence import check_weights
from minitx.training.loop import evaluate
from minitx.training.report import Report
from minitx.training.session import train
from minitx.training.state import Training, bits_per_byte, due_after


def prune_run(
    run: str,
    checkpoint: str,
    heads: list[Head] | None,
    keep_fraction: float | None,
    by: str,
    out: str | None,
    finetune_steps: int,
    curve: bool,
    random_orders: int,
    tokens: int,
    seed: int,
) -> int:
    """Do what `minitx prune` was asked to do; its --help explains the options. Returns the exit status."""
    spare_the_compiler()
    original = Run.find(run)
    config = original.config()
    tricks = ", ".join(config.model.tricks)
    require(not tricks, f"The run {run} has tricks ({tricks}), and only models without them are pruned: name another.")
    if heads is not None:
        pruning.pruned_config(config.model, heads)  # refuse before anything takes time
    runtime = choose_runtime(config.device, config.dtype, config.compile, config.threads)
    chosen = original.checkpoint(checkpoint)
    model, _ = original.load_model(checkpoint, runtime.device)
    prepared = prepared_text(config, original, "prune where it is unchanged")
    all_heads, batch_size, half = pruning.heads_of(model.config), config.train.batch_size, len(prepared.val) // 2
    require(half >= 2, "The validation text is too short to choose heads on one half and measure on the other.")
    first_half, second_half = prepared.val[:half][:tokens], prepared.val[half:][:tokens]
    measured, path = None, original.path
    with (
        pruning.removal_loss(model, first_half, batch_size, runtime, "choosing heads") as choosing_loss,
        pruning.removal_loss(model, second_half, batch_size, runtime, "measuring the curve") as curve_loss,
    ):
        if keep_fraction is not None:
            heads = pruning.choose_heads(all_heads, keep_fraction, by, seed, choosing_loss)
        if curve:
            measured = measure_curve(all_heads, choosing_loss, curve_loss, range(seed, seed + random_orders))
    if heads:
        smaller = pruning.prune(model, heads)
        config = dataclasses.replace(config, model=smaller.config)
        with Run.building(out or f"{original.path}-pruned") as new_run:
            config = new_run.furnish(config, prepared.tokenizer, prepared.describe())
            pruned = Training(config, new_run, prepared, runtime, smaller)
            save_pruned(pruned, chosen)
            report = report_pruning(original, chosen, model, pruned, sorted(heads))
            if measured:
                write_curve(measured, new_run.path, original.path.name)
        path = new_run.path
        print(f"{report}\nThe pruned run is in {path}.{'' if finetune_steps else ' Next:'}")
        if not finetune_steps:
            print(f"  {command('generate')} {path}")
            print(f"  {command('train')} --resume {path} --train.steps {chosen.step + 100}")
    elif measured:
        write_curve(measured, path, original.path.name)
    if measured:
        print(f"\n{measured.text(original.path.name)}")
        print(f"\nTable, picture and figures are in {path}/pruning_curve.md, .png, .json.")
    if heads and finetune_steps:
        longer = dataclasses.replace(config.train, steps=chosen.step + finetune_steps)
        return train(dataclasses.replace(config, train=longer), resume=str(path))
    return 0


def save_pruned(pruned: Training, checkpoint: Checkpoint) -> None:
    """Write metrics, head scores and a first checkpoint of the pruned model, at the step of the pruned `checkpoint`.

    Training can go on from there; optimizers start afresh.
    """
    config, prepared = pruned.config, pruned.prepared
    loss = evaluate(pruned.model, prepared.val, config.train.batch_size, pruned.runtime)
    before, step = checkpoint.progress, checkpoint.step
    pruned.progress = Progress(step, before.tokens, before.seconds, loss, loss, step)
    if checkpoint.batches is not None:  # an imported run has none
        pruned.restore_batches(checkpoint)
    torch.manual_seed(config.seed)
    line = {"step": step, "tokens": before.tokens, "seconds": before.seconds, "train_loss": None}
    measured = {"val_loss": loss, "val_bits_per_byte": bits_per_byte(loss, len(prepared.val), prepared.val_bytes)}
    rest = {"learning_rate": None, "grad_norm": None, "tokens_per_second": None}
    pruned.run.append_metrics({**line, **measured, **rest})
    with Report(pruned, start_step=0) as report:
        report.writer().scalars(step, {**measured, "best_val_loss": loss})
        report.heads(due_after(config.train.steps, config))
        report.summarise()
    check_weights(pruned)
    pruned.save(best=True)


def report_pruning(run: Run, checkpoint: Checkpoint, whole: Transformer, pruned: Training, gone: list[Head]) -> str:
    """Measure both models, write the figures into pruning.json, and return them as text."""
    val, device = pruned.prepared.val, pruned.runtime.device
    window = torch.from_numpy(val[: whole.config.context_length].astype("int64"))[None].to(device)  # (1, seq)
    models = {"before": whole, "after": pruned.model}
    losses = [evaluate(whole, val, pruned.config.train.batch_size, pruned.runtime), pruned.progress.best_val_loss]
    with torch.inference_mode():
        forward = {name: partial(model, window) for name, model in models.items()}
        timed = alternate(forward, repeats=15, seconds=math.inf, device=device, shortest=0.01)
    figures = {
        name: {
            "parameters": sum(p.numel() for p in model.parameters()),
            "validation loss (nats per token)": loss,
            "forward tokens per second": window.numel() / timed[name].median,
            "cache bytes per token": cache_bytes_per_token(model.config),
        }
        for (name, model), loss in zip(models.items(), losses, strict=True)
    }
    removed, difference = pruning.head_names(gone), masked_difference(whole, pruned.model, gone, window)
    about = {"from": str(run.path), "checkpoint": checkpoint.path.name, "removed": removed}
    pruned.run.write_json("pruning.json", {**about, "largest_logit_difference_to_masked": difference, **figures})
    rows = []
    for name, before in figures["before"].items():
        form = ",.3f" if "loss" in name else ",.0f"
        rows.append([name, f"{before:{form}}", f"{figures['after'][name]:{form}}"])
    return (
        f"\nremoved {', '.join(removed)} of {run.path} ({checkpoint.path.name})\n"
        f"\n{markdown_table(['', 'before', 'after'], rows)}\n"
        f"\nLogits differ from those of the masked model by at most {difference:.1g}."
    )


@torch.inference_mode()
def masked_difference(whole: Transformer, smaller: Transformer, gone: list[Head], window: Tensor) -> float:
    """The largest difference in any logit between `smaller` and `whole` with the gates of the heads `gone` at 0."""
    return float((whole(window, heads=pruning.access_without(whole, gone)) - smaller(window)).abs().max())
