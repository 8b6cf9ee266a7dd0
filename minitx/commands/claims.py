"""`minitx claims`: try on small models what is said of attention heads, and say what holds.

Trains models with several depths, head counts and kinds of attention on tales, several seeds each, and measures what
their heads do. Takes every setting that training takes. The same command goes on with what was cut off, and several
processes may share the work.
"""

import dataclasses
import shlex
from collections.abc import Sequence

from minitx.commands.shared import add_seeds, check_seeds
from minitx.config import Config
from minitx.config.parsing import instantiate, new_parser, option_value, parse


def main(arguments: Sequence[str], prog: str) -> int:
    """Try the claims as the command line says; the exit status."""
    parser = new_parser(prog, Config)
    parser.description = __doc__
    add_seeds(parser)
    parser.add_argument(
        "--short", action="store_true", help="Fewer models, seeds, steps and tales: minutes, not an hour."
    )
    options = parse(parser, Config, arguments)
    config = instantiate(parser, options, Config)
    check_seeds(options)
    if option_value(arguments, "--out") is None:
        config = dataclasses.replace(config, out="runs/claims")

    from minitx.studies.claims import claims

    return claims(config, options.seeds, options.short, shlex.join([*prog.split(), *arguments]))
