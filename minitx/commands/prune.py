"""`minitx prune RUN`: remove attention heads for good and write the smaller model as a new run.

Name the heads (--heads 0.1,2.3), or let them be chosen (--keep_fraction 0.5 --by greedy). --curve measures the loss
against the number of heads removed. Heads are chosen on the first half of the validation text, and the curve is
measured on the second. The loss of the new run is measured on all of it, as in training.
"""

from collections.abc import Sequence
from typing import Literal

from minitx.commands.shared import exclude, parse_list, run_parser
from minitx.config.parsing import parse_plain
from minitx.system.errors import require, require_bounds


def main(arguments: Sequence[str], prog: str) -> int:
    """Prune as the command line says; the exit status."""
    parser = run_parser(prog, __doc__)
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
    heads, share = options.heads, options.keep_fraction
    exclude(options, "heads", "keep_fraction")
    is_chosen = heads is not None or share is not None or options.curve
    require(is_chosen, "Nothing to do: name --heads, give --keep_fraction, or ask for the --curve.")
    require_bounds(options, "--", "keep_fraction", above=0, below=1)
    require_bounds(options, "--", "finetune_steps random_orders seed", at_least=0)
    require_bounds(options, "--", "tokens", at_least=2)
    if heads is not None:
        complaint = f"--heads is {heads!r}, but it takes heads as layer.head with commas, each once, such as 0.1,2.3."
        parts = parse_list(heads, r"[0-9]{1,9}\.[0-9]{1,9}", complaint)
        options.heads = [(int(layer), int(head)) for layer, head in (part.split(".") for part in parts)]

    from minitx.studies.pruned_run import prune_run

    return prune_run(**vars(options))
