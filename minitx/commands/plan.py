"""`minitx plan`: what training with many processes would need and take, on machines that are not here."""

import shlex
from collections.abc import Sequence

from minitx.config.parsing import instantiate, new_parser, parse
from minitx.studies.plan_settings import PlanConfig


def main(arguments: Sequence[str], prog: str) -> int:
    """Plan as the command line says; the exit status."""
    parser = new_parser(prog, PlanConfig)
    settings = instantiate(parser, parse(parser, PlanConfig, arguments), PlanConfig)

    from minitx.studies.plan import plan
    from minitx.studies.plan_report import as_text

    print(as_text(plan(settings, f"{prog} {shlex.join(arguments)}"), settings))
    return 0
