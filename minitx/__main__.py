"""`python -m minitx VERB …`, also installed as `minitx`."""

import importlib
import sys
from collections.abc import Sequence

from minitx import __version__
from minitx.system.errors import UserError, nearest
from minitx.system.exits import run_command

VERBS = {
    "train": "train a model (the same as train.py)",
    "generate": "write text with a trained model (the same as generate.py)",
    "heads": "show what each attention head of a run does and how much it matters",
    "walkthrough": "show one attention layer of a run step by step, with its real numbers",
    "data": "prepare a text for training and print its size",
    "compare": "train a model at several head counts, or with several kinds of attention",
    "claims": "try on small models what is said of attention heads, and say what holds",
    "bench": "measure speed and memory on this machine, against other programs",
    "plan": "say what training on many GPUs would need and take, without them",
    "prune": "remove attention heads for good",
    "export": "write a run's model in the format of the transformers library",
    "import": "make a run of a Llama or Qwen3 model in that format",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit status."""
    verb, *rest = (sys.argv[1:] if arguments is None else list(arguments)) or ["--help"]
    return run_command(lambda: dispatch(verb, rest))


def dispatch(verb: str, arguments: Sequence[str]) -> int:
    """Pass the arguments to the module of the verb in `minitx.commands`; raises UserError for an unknown verb."""
    if verb in ("-h", "--help"):
        print("usage: minitx VERB …    (minitx VERB --help explains one)\n")
        print("\n".join(f"  {name:11} {meaning}" for name, meaning in VERBS.items()))
        return 0
    if verb == "--version":
        print(f"minitx {__version__}")
        return 0
    if verb not in VERBS:
        raise UserError(f"There is no command {verb}{nearest(verb, list(VERBS))}: there are {', '.join(VERBS)}.")
    module = importlib.import_module(f"minitx.commands.{verb.replace('import', 'import_')}")
    return int(module.main(arguments, prog=f"minitx {verb}"))


if __name__ == "__main__":
    sys.exit(main())
