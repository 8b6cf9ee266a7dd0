"""`minitx compare`: train a model with several head counts, kinds of attention or tricks, and several seeds.

Takes every setting that training takes. The same command goes on with a comparison that was cut off, and shows the
result of a finished one. Models with different head counts must have equally many parameters in their matrices. Only
the vectors of query-key norm differ, for they are as wide as a head: --model.qk_norm false removes them.
"""

import dataclasses
from collections.abc import Sequence

from minitx.commands.shared import add_seeds, check_seeds, exclude, parse_list
from minitx.config import Config
from minitx.config.model import TRICKS
from minitx.config.parsing import instantiate, new_parser, option_value, parse

DEFAULT_HEADS = "1,2,4,8,16"
KINDS = ("multi_head", "grouped_query", "multi_query", "latent")


def main(arguments: Sequence[str], prog: str) -> int:
    """Compare as the command line says; the exit status."""
    parser = new_parser(prog, Config)
    parser.description = __doc__
    parser.add_argument("--heads", metavar="LIST", help=f"Head counts, with commas; by default {DEFAULT_HEADS}.")
    parser.add_argument(
        "--kinds", metavar="LIST", help=f"Kinds of attention, with commas: some of {', '.join(KINDS)}, or all."
    )
    parser.add_argument(
        "--tricks",
        metavar="LIST",
        help="Tricks of model.tricks, with commas, or all: each alone, beside the plain model.",
    )
    add_seeds(parser)
    options = parse(parser, Config, arguments)
    config = instantiate(parser, options, Config)
    exclude(options, "heads", "kinds", "tricks")
    exclude(options, "kinds", "tricks")
    check_seeds(options)
    counts = kinds = tricks = None
    if options.kinds is not None:
        axis, kinds = "kinds", choices("--kinds", options.kinds, KINDS)
    elif options.tricks is not None:
        axis, tricks = "tricks", choices("--tricks", options.tricks, TRICKS)
    else:
        axis, heads = "heads", options.heads or DEFAULT_HEADS
        complaint = f"--heads is {heads!r}, but it takes head counts with commas, each once, such as {DEFAULT_HEADS}."
        counts = [int(count) for count in parse_list(heads, "0*[1-9][0-9]{0,8}", complaint)]
    if option_value(arguments, "--out") is None:
        config = dataclasses.replace(config, out=f"runs/compare-{axis}")

    from minitx.studies.comparison import compare

    return compare(config, counts, kinds, options.seeds, tricks)


def choices(flag: str, given: str, names: Sequence[str]) -> list[str]:
    """The names in a list with commas, or all of them; raises UserError for another."""
    listed = ", ".join(names)
    complaint = f"{flag} is {given!r}, but it takes some of {listed}, each once, or all."
    return parse_list(listed if given == "all" else given, "|".join(names), complaint)
