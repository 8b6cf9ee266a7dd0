"""`minitx completion bash` (or zsh): a script with which the shell completes verbs, settings, values and names.

Written by shtab from the parsers of all verbs. It asks nothing of Python later, so completing takes no time.
"""

import importlib.util
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser, capture_parser

from minitx.commands.verbs import VERBS, module_of
from minitx.config.parsing import parse_plain
from minitx.config.shipped import config_names
from minitx.system.errors import require

PREAMBLES = {
    "bash": """
_minitx_config_files() { compgen -W "NAMES" -- "$1"; compgen -f -- "$1"; }
_minitx_run_dirs() { compgen -d -- "${1:-runs/}"; }
_minitx_dirs() { compgen -d -- "$1"; }
_minitx_files() { compgen -f -- "$1"; }
""",
    "zsh": """
_minitx_config_files() { _alternative "configurations:configuration:(NAMES)" "files:file:_files" }
_minitx_run_dirs() { _alternative "runs:run:(runs/*(/N))" "folders:folder:_files -/" }
_minitx_dirs() { _files -/ }
_minitx_files() { _files }
""",
}
"""Functions for the values of options, by the shell; shtab shows as files what has file or dir in its name."""

FUNCTIONS = {
    "RUN": "_minitx_run_dirs",
    "NAME": "_minitx_config_files",
    "FILE|NAME": "_minitx_config_files",
    "FILE": "_minitx_files",
    "FILE.html": "_minitx_files",
    "FOLDER": "_minitx_dirs",
}
"""The function for an option's values, by its name in --help."""


def main(arguments: Sequence[str], prog: str) -> int:
    """Write the script; the exit status."""
    parser = ArgumentParser(prog=prog, description=__doc__, exit_on_error=False)
    parser.add_argument("shell", choices=sorted(PREAMBLES), help="The shell that is to read the script.")
    shell = parse_plain(parser, arguments).shell
    is_here = importlib.util.find_spec("shtab") is not None
    require(is_here, "shtab, which writes the script, is not installed: pip install shtab, then try again.")
    print(script(shell))
    return 0


def script(shell: str) -> str:
    """The script for bash or zsh, from the parser of each verb, caught where the verb begins to parse."""
    program = ArgumentParser(prog="minitx", exit_on_error=False)
    verbs = program.add_subcommands(required=False)
    for verb, meaning in VERBS.items():
        parser = capture_parser(module_of(verb).main, [], f"minitx {verb}")
        for action in parser._actions:
            add_function(action)
        verbs.add_subcommand(verb, parser, help=meaning)
    names = PREAMBLES[shell].replace("NAMES", " ".join(config_names()))
    return str(program.get_completion_script(f"shtab-{shell}", preambles=[names]))


def add_function(action: Any) -> None:
    """Let the values of an option or argument be completed as its name in --help says."""
    if action.metavar in FUNCTIONS:
        action.complete = dict.fromkeys(PREAMBLES, FUNCTIONS[action.metavar])
