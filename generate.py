"""Write text with a trained model: `python generate.py [RUN] --prompt "Once upon a time"`. See --help."""

import sys

from minitx.commands.verbs import module_of
from minitx.system.exits import run_command

if __name__ == "__main__":
    sys.exit(run_command(lambda: module_of("generate").main()))
