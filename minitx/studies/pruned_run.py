"""A run folder of a pruned model, and what pruning won and lost."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from minitx.config import Config

if TYPE_CHECKING:
    from minitx.data.prepare import Prepared
    from minitx.model import Transformer
    from minitx.run.checkpoints import Checkpoint
    from minitx.run.folder import Run
    from minitx.studies.pruning import Head
    from minitx.system.runtime import Runtime


def write_run(
    out: str, checkpoint: Checkpoint, config: Config, smaller: Transformer, prepared: Prepared, runtime: Runtime
) -> Run:
    """A whole run folder of the pruned model, at the step that its weights come from: it can be resumed from there.

    Optimizers start afresh. The metrics begin with the loss after pruning.
    """
    import torch

    from minitx.data.batches import Batches
    from minitx.run.folder import Run
    from minitx.training.loop import bits_per_byte, evaluate
    from minitx.training.optim import build_optimizers
    from minitx.training.report import Report
    from minitx.training.state import Progress, save

    config = dataclasses.replace(config, model=smaller.config)
    made = Run.create(out, config, prepared.tokenizer, prepared.describe())
    config = dataclasses.replace(config, out=str(made.path))
    loss = evaluate(smaller, prepared.val, config.train.batch_size, runtime)
    known = {name: checkpoint.state[name] for name in ("tokens", "seconds") if name in checkpoint.state}
    progress = Progress(checkpoint.step, **known, val_loss=loss, best_val_loss=loss, best_step=checkpoint.step)
    batches = Batches(prepared.train, config.model.context_length, config.train.batch_size, config.seed, runtime.device)
    if "batches" in checkpoint.state:  # an imported run has none
        batches.restore(checkpoint.state["batches"])
    torch.manual_seed(config.seed)
    measured = {"val_loss": loss, "val_bits_per_byte": bits_per_byte(loss, len(prepared.val), prepared.val_bytes)}
    line = {"step": progress.step, "tokens": progress.tokens, "seconds": progress.seconds, "train_loss": None}
    made.append_metrics({**line, **measured, "learning_rate": None, "grad_norm": None, "tokens_per_second": None})
    with Report(config, made, prepared, runtime, smaller, step=0) as report:
        report.opened_board().scalars(progress.step, measured)
        report.heads(progress.step, last=True)
        report.summarise(progress)
    save(made, config, smaller, build_optimizers(smaller, config.train), batches, runtime, progress, is_best=True)
    return made


def tell(
    made: Run,
    run: Run,
    checkpoint: Checkpoint,
    model: Transformer,
    smaller: Transformer,
    gone: list[Head],
    prepared: Prepared,
    runtime: Runtime,
) -> None:
    """Measure what was won and lost, say it, and keep it in pruning.json."""
    import torch

    from minitx.model_size import cache_bytes_per_token
    from minitx.training.loop import evaluate

    window = torch.from_numpy(prepared.val[: model.config.context_length].astype("int64"))[None].to(runtime.device)
    whole_loss = evaluate(model, prepared.val, made.config().train.batch_size, runtime)
    numbers: dict[str, list[float]] = {
        "parameters": [sum(p.numel() for p in each.parameters()) for each in (model, smaller)],
        "validation loss (nats per token)": [whole_loss, made.read_json("summary.json")["val_loss"]],
        "forward tokens per second": speeds([lambda: model(window), lambda: smaller(window)], window.numel()),
        "cache bytes per token": [cache_bytes_per_token(each.config) for each in (model, smaller)],
    }
    removed = [f"{layer}.{head}" for layer, head in sorted(gone)]
    difference = masked_difference(model, smaller, gone, window)
    content = {
        "from": str(run.path),
        "checkpoint": checkpoint.path.name,
        "removed": removed,
        "largest_logit_difference_to_masked": difference,
        "before": {name: values[0] for name, values in numbers.items()},
        "after": {name: values[1] for name, values in numbers.items()},
    }
    made.write_json("pruning.json", content)
    print(f"\nremoved {', '.join(removed)} of {run.path} ({checkpoint.path.name})\n")
    print(f"{'':34}{'before':>12}{'after':>12}")
    for name, (before, after) in numbers.items():
        form = ",.3f" if "loss" in name else ",.0f"
        print(f"{name:34}{before:>12{form}}{after:>12{form}}")
    print(
        f"\nLogits differ from those of the masked model by at most {difference:.1g}."
        f'\nThe pruned run is in {made.path}. Next:\n  python generate.py {made.path} --prompt "The"\n'
        f"  python train.py --resume {made.path} --train.steps {checkpoint.step + 100}"
    )


def masked_difference(model: Transformer, smaller: Transformer, gone: list[Head], window: Any) -> float:
    """Largest difference in any logit between the pruned model and the whole one with its gates at 0."""
    import torch

    gates = torch.ones(model.config.n_layer, model.config.n_head, device=window.device)
    for layer, head in gone:
        gates[layer, head] = 0
    with torch.inference_mode():
        return float((model(window, gates=gates) - smaller(window)).abs().max())


def speeds(calls: list[Callable[[], object]], tokens: int, rounds: int = 15) -> list[float]:
    """Tokens per second of each call, which handles `tokens`: the median over rounds in which all take turns."""
    import torch

    seconds: list[list[float]] = [[] for _ in calls]
    with torch.inference_mode():
        for _ in range(rounds):
            for call, own in zip(calls, seconds, strict=True):
                began = time.perf_counter()
                call()
                own.append(time.perf_counter() - began)
    return [tokens / statistics.median(own) for own in seconds]
