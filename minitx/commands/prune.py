"""`minitx prune RUN`: remove attention heads for good and write what is left as a run of its own.

Heads are named (--heads 0.1,2.3), or chosen (--keep_fraction 0.5 --by greedy). --curve measures the loss against the
number of heads removed. Heads are chosen on the first half of the validation text, the curve is measured on the second,
and the loss of the new run, as in training, on all of it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser

from minitx.config.parsing import parse_plain
from minitx.system.errors import require

if TYPE_CHECKING:
    from minitx.studies.pruning import Head, LossWithout


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
    from minitx.run.folder import Run
    from minitx.run.text import prepared_text
    from minitx.studies import pruning
    from minitx.studies.pruned_run import tell, write_run
    from minitx.studies.pruning_curve import LossWithoutHeads, measured_curve, write_curve
    from minitx.system.runtime import choose_runtime

    run = Run.find(options.run)
    config = run.config()
    runtime = choose_runtime(config.device, config.dtype, config.compile, config.threads)
    checkpoint = run.checkpoint(options.checkpoint)
    model, _ = run.load_model(options.checkpoint, runtime.device)
    heads = pruning.heads_of(model.config)
    if named is not None:
        pruning.pruned_config(model.config, named)  # refuse before anything takes time
    prepared = prepared_text(config, run, "prune where it is unchanged")
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
        from minitx.training.session import train

        longer = dataclasses.replace(config.train, steps=checkpoint.step + options.finetune_steps)
        return train(dataclasses.replace(made.config(), train=longer), resume=str(made.path))
    return 0


def chosen(heads: list[Head], count: int, by: str, seed: int, loss_without: LossWithout) -> list[Head]:
    """`count` of the heads to remove."""
    from minitx.studies import pruning

    if by == "random":
        return pruning.random_order(heads, seed)[:count]
    if by == "importance":
        return pruning.importance_order(heads, loss_without)[:count]
    return pruning.greedy_order(heads, loss_without, count)
