"""Models of others from the Hugging Face Hub: one, or a branch for each checkpoint of a training, as Pythia's."""

import re
import sys
from pathlib import Path

from minitx.data.hub import is_of_network
from minitx.interop.series import CHECKPOINT
from minitx.system.errors import UserError, require

FILES = ["*.json", "*.safetensors", "*.model"]


def is_on_hub(name: str) -> bool:
    """Whether `name` is that of a model on the Hub, and no folder here."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) is not None and not Path(name).exists()


def downloaded(name: str, is_series: bool) -> dict[int, Path]:
    """The folder of a model on the Hub as step 0, or of each of its branches step500, checkpoint-500 and the like.

    Raises UserError where the Hub does not give it.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
    try:
        if not is_series:
            return {0: Path(snapshot_download(name, allow_patterns=FILES))}
        found = [(CHECKPOINT.fullmatch(branch.name), branch.name) for branch in HfApi().list_repo_refs(name).branches]
        steps = sorted((int(match[1]), branch) for match, branch in found if match)
        require(
            bool(steps), f"{name} holds no series: its branches must be called step500, checkpoint-500 or the like."
        )
        return {step: Path(snapshot_download(name, revision=branch, allow_patterns=FILES)) for step, branch in steps}
    except UserError:
        raise
    except Exception as error:  # the library has many kinds
        reason = " ".join(str(error).split()) or type(error).__name__
        cause: BaseException | None = error
        while cause is not None and not is_of_network(cause):
            cause = cause.__cause__ or cause.__context__
        remedy = "check the network" if cause else "check the name, or log in with `hf auth login`"
        raise UserError(f"{name} is no folder here, and the Hub does not give it ({reason}): {remedy}.") from error
