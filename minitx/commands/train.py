"""`train.py`: train a new run, resume one, or start from the weights of another."""

import sys
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from minitx.config import Config
from minitx.config.parsing import instantiate, new_parser, option_value, parse
from minitx.system.errors import require


def main(arguments: Sequence[str] | None = None, prog: str = "train.py") -> int:
    """Train as the command line says; the exit status."""
    config, resume = parse_train(sys.argv[1:] if arguments is None else arguments, prog)

    from minitx.training.session import train

    if config.init_from is None or (resume is not None and any((Path(resume) / "checkpoints").glob("step-*"))):
        return train(config, resume)
    from minitx.run.folder import Run

    start = Run.find(config.init_from)
    return train(config, resume, start.checkpoint("best").load_weights, start.tokenizer())


def parse_train(arguments: Sequence[str], prog: str, purpose: str | None = None) -> tuple[Config, str | None]:
    """The configuration of a training run, and the folder of the run to resume, if any; purpose: for --help."""
    parser = new_parser(prog, Config)
    parser.description = purpose or parser.description
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
    config = instantiate(parser, parse(parser, Config, arguments), Config)
    if config.init_from is not None and resume is None:
        start = settings_of(config.init_from)
        parser.set_defaults(start)
        config = instantiate(parser, parse(parser, Config, arguments), Config)
        for key, value in start.items():
            is_kept = attrgetter(key)(config) == value or key in ("model.context_length", "model.dropout")
            require(is_kept, f"--init_from keeps {key} of {config.init_from}, which is {value}: leave it out.")
    return config, resume


def settings_of(run: str) -> dict[str, Any]:
    """The settings that a run keeps of the one that it starts from, by their names."""
    from minitx.run.folder import Run

    config = Run.find(run).config()
    kept = {f"{name}.{key}": value for name in ("model", "tokenizer") for key, value in config.to_dict()[name].items()}
    return {**kept, "train.start": "random"}
