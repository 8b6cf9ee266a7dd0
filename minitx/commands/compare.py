"""`minitx compare`: train the same model with several head counts, or kinds of attention, and several seeds.

Takes every setting that training takes. The same command goes on with a comparison that was cut off, and shows the
result of a finished one. Models with different head counts must have equally many parameters in their matrices. Only
the vectors of query-key norm differ, for they are as wide as a head: --model.qk_norm false removes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from minitx.config import Config
from minitx.config.parsing import instantiate, new_parser, option_value, parse
from minitx.system.errors import require

DEFAULT_HEADS = "1,2,4,8,16"
KINDS = ("multi_head", "grouped_query", "multi_query", "latent")


def main(arguments: Sequence[str], prog: str) -> int:
    """Compare as the command line says; the exit status."""
    parser = new_parser(prog, Config)
    parser.description = __doc__
    parser.add_argument(
        "--heads", metavar="LIST", help=f"Head counts to compare, with commas; without --kinds {DEFAULT_HEADS}."
    )
    parser.add_argument(
        "--kinds",
        metavar="LIST",
        help=f"Kinds of attention to compare, with commas: {', '.join(KINDS)}, or all.",
    )
    parser.add_argument("--seeds", type=int, default=3, help="Seeds to train every model with, from seed upwards.")
    namespace = parse(parser, Config, arguments)
    heads, kinds, n_seeds = namespace.pop("heads"), namespace.pop("kinds"), namespace.pop("seeds")
    config = instantiate(parser, namespace, Config)
    require(heads is None or kinds is None, "Both --heads and --kinds are given: compare one after the other.")
    require(n_seeds >= 1, f"--seeds is {n_seeds}, but at least 1 is needed.")
    counts = parse_head_counts(heads or DEFAULT_HEADS) if kinds is None else None
    chosen_kinds = None if kinds is None else parse_kinds(kinds)
    if option_value(arguments, "--out") is None:
        config = dataclasses.replace(config, out=f"runs/compare-{'heads' if kinds is None else 'kinds'}")
    from minitx.studies.comparison import compare

    return compare(config, counts, chosen_kinds, n_seeds)


def parse_head_counts(text: str) -> list[int]:
    """The numbers in a list such as 1,2,4; raises UserError where it is not one."""
    parts = [part.strip() for part in text.split(",")]
    good = all(part.isdecimal() and int(part) >= 1 for part in parts) and len({*parts}) == len(parts)
    require(good, f"--heads is {text!r}, but it takes head counts with commas, each once, such as {DEFAULT_HEADS}.")
    return [int(part) for part in parts]


def parse_kinds(text: str) -> list[str]:
    """The names in a list such as multi_head,latent, or all; raises UserError for a name that is no kind."""
    kinds = list(KINDS) if text == "all" else [part.strip() for part in text.split(",")]
    require(
        set(kinds) <= set(KINDS) and len(set(kinds)) == len(kinds),
        f"--kinds is {text!r}, but it takes some of {', '.join(KINDS)}, each once, or all.",
    )
    return kinds
