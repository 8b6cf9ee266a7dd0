"""`python -m minitx VERB …`, also installed as `minitx`."""

import sys
from collections.abc import Sequence

from minitx import __version__
from minitx.commands.verbs import VERBS, module_of
from minitx.system.errors import UserError, nearest
from minitx.system.exits import run_command
from minitx.system.program import refuse_torchrun


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    verb, *rest = (sys.argv[1:] if arguments is None else list(arguments)) or ["--help"]
    return run_command(lambda: dispatch(verb, rest))


def dispatch(verb: str, arguments: Sequence[str]) -> int:
    """Pass the arguments to the module of the verb in `minitx.commands`; raises UserError for an unknown verb."""
    if verb != "train":
        refuse_torchrun(f"minitx {verb}")
    if verb in ("-h", "--help"):
        print("usage: minitx VERB …    (minitx VERB --help explains one)\n")
        print("\n".join(f"  {name:11} {meaning}" for name, meaning in VERBS.items()))
        return 0
    if verb == "--version":
        print(f"minitx {__version__}")
        return 0
    if verb not in VERBS:
        raise UserError(f"There is no command {verb}{nearest(verb, list(VERBS))}: there are {', '.join(VERBS)}.")
    return int(module_of(verb).main(arguments, prog=f"minitx {verb}"))


if __name__ == "__main__":
    sys.exit(main())
