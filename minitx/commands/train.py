"""`train.py`: train a new run, or resume one."""

import sys
from collections.abc import Sequence
from pathlib import Path

from minitx.config import Config
from minitx.config.parsing import instantiate, new_parser, option_value, parse
from minitx.system.errors import require


def main(arguments: Sequence[str] | None = None, prog: str = "train.py") -> int:
    """Train as the command line says; the exit status."""
    config, resume = parse_train(sys.argv[1:] if arguments is None else arguments, prog)

    from minitx.training.session import train

    return train(config, resume)


def parse_train(arguments: Sequence[str], prog: str) -> tuple[Config, str | None]:
    """The configuration of a training run, and the folder of the run to resume, if any."""
    parser = new_parser(prog, Config)
    parser.add_argument("--resume", metavar="RUN", help="Go on with a run from its last whole checkpoint.")
    resume = option_value(arguments, "--resume")
    if resume is not None:
        file = Path(resume) / "config.yaml"
        missing = f"There is no run in {resume} to resume ({file} is missing): name a folder such as runs/default."
        require(file.is_file(), missing)
        stays = option_value(arguments, "--out") is None
        require(stays, f"A resumed run stays in its folder {resume}: leave --out out, or start a new run.")
        alone = option_value(arguments, "--config") is None
        require(alone, "--resume takes the run's own configuration: leave --config out.")
        from minitx.run.folder import Run

        Run(Path(resume)).check_config()
        arguments = ["--config", str(file), *arguments]
    return instantiate(parser, parse(parser, Config, arguments), Config), resume
