"""How this program was called, so that the commands it suggests work for whoever reads them."""

import sys
from pathlib import Path


def command(verb: str) -> str:
    """The beginning of a command for `verb`: `python train.py`, `python -m minitx train` or `minitx train`.

    A checkout has scripts for train and generate alone.
    """
    started = Path(sys.argv[0])
    if started.parts[-2:] == ("minitx", "__main__.py"):
        return f"python -m minitx {verb}"
    has_script = started.name in ("train.py", "generate.py") and verb in ("train", "generate")
    return f"python {verb}.py" if has_script else f"minitx {verb}"
