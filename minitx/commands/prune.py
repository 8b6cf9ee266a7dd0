"""`minitx prune RUN`: remove attention heads for good and write the smaller model as a new run.

Name the heads (--heads 0.1,2.3), or let them be chosen (--keep_fraction 0.5 --by greedy). --curve measures the loss
against the number of heads removed. Heads are chosen on the first half of the validation text, and the curve is
measured on the second. The loss of the new run is measured on all of it, as in training.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import ArgumentParser

from minitx.config.parsing import parse_plain
from minitx.system.errors import require

if TYPE_CHECKING:
    from minitx.studies.pruning import Head


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
        help="How to choose: greedy measures the heads again after each removal, importance measures them once, random "
        "shuffles them.",
    )
    parser.add_argument("--out", metavar="NEWRUN", help="Run folder to write; by default RUN-pruned.")
    parser.add_argument("--finetune_steps", type=int, default=0, help="Steps to train the pruned model.")
    parser.add_argument("--curve", action="store_true", help="Measure loss against heads removed: table, picture.")
    parser.add_argument("--random_orders", type=int, default=5, help="Random orders in the curve.")
    parser.add_argument("--tokens", type=int, default=8192, help="Tokens to choose and to measure curves on, at most.")
    parser.add_argument("--seed", type=int, default=1337, help="Seed of the random orders.")
    options = parse_plain(parser, arguments)
    check(options)
    if options.heads is not None:
        options.heads = parse_heads(options.heads)
    from minitx.studies.pruned_run import prune_run

    return prune_run(**vars(options))


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


def parse_heads(text: str) -> list[Head]:
    """Layer and head of a list such as 0.1,2.3; raises UserError where it is not one."""
    parts = [part.strip() for part in text.split(",")]
    good = all(re.fullmatch(r"[0-9]+\.[0-9]+", part) for part in parts) and len({*parts}) == len(parts)
    require(good, f"--heads is {text!r}, but it takes heads as layer.head with commas, each once, such as 0.1,2.3.")
    return [(int(layer), int(head)) for layer, head in (part.split(".") for part in parts)]
