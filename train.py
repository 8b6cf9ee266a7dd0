"""Train a model: `python train.py`, or with --config FILE and any setting as --section.key value. See --help."""

import sys

from minitx.commands.verbs import module_of
from minitx.system.exits import run_command

if __name__ == "__main__":
    sys.exit(run_command(lambda: module_of("train").main()))
