"""`minitx prune RUN`: remove attention heads for good and write what is left as a run of its own.

Heads are named (--heads 0.1,2.3), or chosen (--keep_fraction 0.5 --by greedy). --curve measures the loss against the
number of heads removed. Heads are chosen on the first half of the validation text, the curve is measured on the second,
and the loss of the new run, as in training, on all of it.
"""

from __future__ import annotations

import dataclasses
import re
import statistics
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser

from minitx.config.parsing import parse_plain
from minitx.config.settings import Config, require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from minitx.data.prepare import Prepared
    from minitx.model import Transformer
    from minitx.run.checkpoints import Checkpoint
    from minitx.run.folder import Run
    from minitx.studies.pruning import Curve, Head, LossWithout
    from minitx.system.runtime import Runtime


def main(arguments: Sequence[str], prog: str) -> int:
    """Prune as the command line says; the exit status."""
    parser = ArgumentParser(prog=prog, description=__doc__, exit_on_error=False)
    parser.add_argument("run", metavar="RUN", help="Run folder.")
    parser.add_argument("--checkpoint", default="best", help="best, last, or a step of the run.")
    parser.add_argument("--heads", metavar="LIST", help="Heads to remove, as layer.head with commas, such as 0.1,2.3.")
    parser.add_argument("--keep_fraction", type=float, metavar="SHARE", help="Share of the heads to keep, in (0, 1).")
    parser.add_argument(
        "--by",
        type=Literal["greedy", "importance", "random"],
        default="greedy",
        help="How to choose: greedy measures the heads anew after each removal, importance measures them once, random "
        "draws them.",
    )
    parser.add_argument("--out", metavar="NEWRUN", help="Run folder to make; by default RUN-pruned.")
    parser.add_argument("--finetune_steps", type=int, default=0, help="Steps to train the pruned model.")
    parser.add_argument("--curve", action="store_true", help="Measure loss against heads removed; table and picture.")
    parser.add_argument("--random_orders", type=int, default=5, help="Random orders in the curve.")
    parser.add_argument("--tokens", type=int, default=8192, help="Most tokens to choose on, and to measure curves on.")
    parser.add_argument("--seed", type=int, default=1337, help="Decides random orders.")
    options = parse_plain(parser, arguments)
    check(options)
    return prune(options, None if options.heads is None else heads_named(options.heads))


def check(options: Any) -> None:
    """Raise UserError where the options do not fit together."""
    require(
        options.heads is None or options.keep_fraction is None,
        "Both --heads and --keep_fraction are given: leave one out.",
    )
    require(
        options.heads is not None or options.keep_fraction is not None or options.curve,
        "Nothing to do: name --heads, give --keep_fraction, or ask for the --curve.",
    )
    require(
        options.keep_fraction is None or 0 < options.keep_fraction < 1,
        f"--keep_fraction is {options.keep_fraction}, but it must lie between 0 and 1.",
    )
    for name, least in (("finetune_steps", 0), ("random_orders", 0), ("tokens", 2), ("seed", 0)):
        value = getattr(options, name)
        require(value >= least, f"--{name} is {value}, but it must be at least {least}.")


def heads_named(text: str) -> list[Head]:
    """Such as 0.1,2.3 as pairs; raises UserError where it is none."""
    parts = [part.strip() for part in text.split(",")]
    good = all(re.fullmatch(r"[0-9]+\.[0-9]+", part) for part in parts) and len({*parts}) == len(parts)
    require(good, f"--heads is {text!r}, but it takes heads as layer.head with commas, each once, such as 0.1,2.3.")
    return [(int(layer), int(head)) for layer, head in (part.split(".") for part in parts)]


def prune(options: Any, named: list[Head] | None) -> int:
    """Choose, remove, measure, write; the exit status."""
    from minitx.data.prepare import prepare
    from minitx.run.folder import Run
    from minitx.studies import pruning
    from minitx.system.runtime import decide

    run = Run.find(options.run)
    config = run.config()
    runtime = decide(config.device, config.dtype, config.compile, config.threads)
    checkpoint = run.checkpoint(options.checkpoint)
    model, _ = run.load_model(options.checkpoint, runtime.device)
    heads = pruning.heads_of(model.config)
    if named is not None:
        pruning.pruned_config(model.config, named)  # refuse before anything takes time
    prepared = prepare(config.data, config.tokenizer, config.seed, progress=True, tokenizer_model=run.tokenizer())
    if (run.path / "data.json").is_file():
        require(
            run.read_json("data.json")["fingerprint"] == prepared.fingerprint,
            f"The text that {run.path} learned from has changed since: prune where it is unchanged.",
        )
    half = len(prepared.val) // 2
    require(half >= 2, "The validation text is too short to choose heads on one half and measure on the other.")
    batch_size = config.train.batch_size
    choose = LossWithoutHeads(model, prepared.val[:half][: options.tokens], batch_size, "choosing heads")

    gone = named
    if options.keep_fraction is not None:
        keep = max(1, round(options.keep_fraction * len(heads)))
        gone = chosen(heads, len(heads) - keep, options.by, options.seed, choose)
        require(
            bool(gone), f"--keep_fraction {options.keep_fraction} of {len(heads)} heads is all of them: keep fewer."
        )
    folder = run.path
    if gone is not None:
        smaller = pruning.prune(model, gone)
        made = write_run(options.out or f"{run.path}-pruned", checkpoint, config, smaller, prepared, runtime)
        tell(made, run, checkpoint, model, smaller, gone, prepared, runtime)
        folder = made.path
    if options.curve:
        measure = LossWithoutHeads(model, prepared.val[half:][: options.tokens], batch_size, "measuring the curve")
        write_curve(measured_curve(heads, choose, measure, options), folder, run)
    if gone is not None and options.finetune_steps:
        from minitx.commands.train import train

        longer = dataclasses.replace(config.train, steps=checkpoint.step + options.finetune_steps)
        return train(dataclasses.replace(made.config(), train=longer), resume=str(made.path))
    return 0


class LossWithoutHeads:
    """The loss on `tokens` without some heads, measured once for each set; counted on a terminal."""

    def __init__(self, model: Transformer, tokens: NDArray[np.unsignedinteger], batch_size: int, label: str) -> None:
        from tqdm import tqdm

        self.model, self.tokens, self.batch_size = model, tokens, batch_size
        self.known: dict[frozenset[Head], float] = {}
        self.bar = tqdm(desc=label, unit="loss", leave=False, delay=0.5, disable=not sys.stderr.isatty())

    def __call__(self, gone: Collection[Head]) -> float:
        from minitx.studies.pruning import gated_loss

        key = frozenset(gone)
        if key not in self.known:
            self.known[key] = gated_loss(self.model, self.tokens, self.batch_size, key)
            self.bar.update()
        return self.known[key]


def chosen(heads: list[Head], count: int, by: str, seed: int, loss_without: LossWithout) -> list[Head]:
    """`count` of the heads to remove."""
    from minitx.studies import pruning

    if by == "random":
        return pruning.random_order(heads, seed)[:count]
    if by == "importance":
        return pruning.importance_order(heads, loss_without)[:count]
    return pruning.greedy_order(heads, loss_without, count)


def write_run(
    out: str, checkpoint: Checkpoint, config: Config, smaller: Transformer, prepared: Prepared, runtime: Runtime
) -> Run:
    """A whole run folder of the pruned model, at the step that its weights come from: it can be resumed from there.

    Optimizers start afresh. The metrics begin with the loss after pruning.
    """
    import torch

    from minitx.data.batches import Batches
    from minitx.run.folder import Run
    from minitx.training.loop import Progress, bits_per_byte, evaluate, save
    from minitx.training.optim import build_optimizers
    from minitx.training.report import Report

    made = Run.create(out)
    config = dataclasses.replace(config, out=str(made.path), model=smaller.config)
    prepared.tokenizer.save(made.path / "tokenizer.model")
    made.write_json("data.json", prepared.describe())
    made.save_config(config)
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

    from minitx.model import cache_bytes_per_token
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


def measured_curve(heads: list[Head], choose: LossWithout, measure: LossWithout, options: Any) -> Curve:
    """Loss after each removal, in greedy, importance and random order."""
    from minitx.studies import pruning

    orders = {
        "greedy": pruning.greedy_order(heads, choose),
        "by importance, measured once": pruning.importance_order(heads, choose),
    }
    randomly = [pruning.random_order(heads, options.seed + i) for i in range(options.random_orders)]

    def losses(order: list[Head]) -> list[float]:
        return [measure(order[:removed]) for removed in range(len(order) + 1)]

    return pruning.Curve(
        orders, {name: losses(order) for name, order in orders.items()}, randomly, [losses(order) for order in randomly]
    )


def write_curve(curve: Curve, folder: Path, run: Run) -> None:
    """pruning_curve.md, .png and .json in `folder`, and the table on standard output."""
    from minitx.run.folder import Run
    from minitx.studies.pruning import draw_curve

    title = f"{run.path.name}: loss against heads removed"
    table = curve.table()
    (folder / "pruning_curve.md").write_text(f"{title}\n\n{table}\n", "utf-8")
    draw_curve(curve, folder / "pruning_curve.png", title)
    Run(folder).write_json("pruning_curve.json", curve.to_dict())
    print(f"\n{title}\n\n{table}\n\nTable, picture and figures are in {folder}/pruning_curve.md, .png, .json.")
