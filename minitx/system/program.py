"""How this program was called, so that the commands it suggests work for whoever reads them."""

import os
import sys
from pathlib import Path

from minitx.system.errors import require

PARENT = os.getppid()


def is_under_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def is_started_by_hand() -> bool:
    """Of one of several processes: whether no launcher holds what they share, as torchrun does."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"


def launcher_has_gone() -> bool:
    """Whether torchrun started this process and has ended; a shell that started one may end."""
    return is_under_torchrun() and os.getppid() != PARENT


def refuse_torchrun(program: str) -> None:
    """Raise UserError under torchrun, which would start `program` several times."""
    require(not is_under_torchrun(), f"torchrun is for training alone: start {program} without it.")


def command(verb: str) -> str:
    """The beginning of a command for `verb`: `python train.py`, `python -m minitx train` or `minitx train`.

    A checkout has scripts for train and generate alone.
    """
    started = Path(sys.argv[0])
    if started.parts[-2:] == ("minitx", "__main__.py"):
        return f"python -m minitx {verb}"
    has_script = started.name in ("train.py", "generate.py") and verb in ("train", "generate")
    return f"python {verb}.py" if has_script else f"minitx {verb}"
