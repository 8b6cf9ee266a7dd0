"""`minitx compare`: train the same model with several head counts, or kinds of attention, and several seeds.

Takes every setting that training takes. The same command goes on with a comparison that was cut off, and shows the
result of a finished one. Models with different head counts must have equally many parameters in their matrices. Only
the vectors of query-key norm differ, for they are as wide as a head: --model.qk_norm false removes them.
"""

import dataclasses
from collections.abc import Sequence

from minitx.commands.shared import exclude, parse_list
from minitx.config import Config
from minitx.config.parsing import instantiate, new_parser, option_value, parse
from minitx.system.errors import require_bounds

DEFAULT_HEADS = "1,2,4,8,16"
KINDS = ("multi_head", "grouped_query", "multi_query", "latent")


def main(arguments: Sequence[str], prog: str) -> int:
    """Compare as the command line says; the exit status."""
    parser = new_parser(prog, Config)
    parser.description, names = __doc__, ", ".join(KINDS)
    parser.add_argument("--heads", metavar="LIST", help=f"Head counts, with commas; without --kinds {DEFAULT_HEADS}.")
    parser.add_argument("--kinds", metavar="LIST", help=f"Kinds of attention, with commas: some of {names}, or all.")
    parser.add_argument("--seeds", type=int, default=3, help="Seeds to train every model with, from seed upwards.")
    options = parse(parser, Config, arguments)
    config = instantiate(parser, options, Config)
    exclude(options, "heads", "kinds")
    require_bounds(options, "--", "seeds", at_least=1)
    counts = kinds = None
    if options.kinds is None:
        heads = options.heads or DEFAULT_HEADS
        complaint = f"--heads is {heads!r}, but it takes head counts with commas, each once, such as {DEFAULT_HEADS}."
        counts = [int(count) for count in parse_list(heads, "0*[1-9][0-9]{0,8}", complaint)]
    else:
        complaint = f"--kinds is {options.kinds!r}, but it takes some of {names}, each once, or all."
        kinds = parse_list(names if options.kinds == "all" else options.kinds, "|".join(KINDS), complaint)
    if option_value(arguments, "--out") is None:
        config = dataclasses.replace(config, out=f"runs/compare-{'heads' if kinds is None else 'kinds'}")

    from minitx.studies.comparison import compare

    return compare(config, counts, kinds, options.seeds)
