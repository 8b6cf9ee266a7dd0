"""Put an exported folder on the Hugging Face Hub, as a model repository.

What a person can put right, such as a missing token, raises UserError. Nothing is written on this machine.
"""

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from minitx.data.hub import is_of_network
from minitx.interop.hf import OUR_FILES
from minitx.system.errors import UserError, require


def full_name(name: str) -> str:
    """The repository `name` with its owner, by default you; raises UserError unless the Hub knows who you are."""
    from huggingface_hub import HfApi

    is_name = re.fullmatch(r"([\w.-]+/)?[\w.-]+", name) is not None
    require(is_name, f"--push {name} is no name of a model on the Hub: give USER/NAME, such as me/small.")
    with as_sentences(name):
        user = HfApi().whoami()["name"]
        return name if "/" in name else f"{user}/{name}"


def push(folder: Path, name: str, is_private: bool) -> str:
    """Put the files of an export into the repository `name`, which is made if need be, and return its address.

    Files of an earlier export that this one lacks are removed there, others stay.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils.logging import set_verbosity_error
    from huggingface_hub.utils.tqdm import disable_progress_bars

    set_verbosity_error()
    if not sys.stderr.isatty():
        disable_progress_bars()
    with as_sentences(name):
        hub = HfApi(library_name="minitx")
        address = hub.create_repo(name, private=is_private or None, exist_ok=True)
        is_open = is_private and not hub.model_info(name).private
        require(not is_open, f"{name} is on the Hub already, for all to see: make it private there, or name another.")
        hub.upload_folder(
            repo_id=name, folder_path=folder, commit_message="Export of minitx", delete_patterns=[*OUR_FILES]
        )
        return str(address)


@contextlib.contextmanager
def as_sentences(name: str) -> Iterator[None]:
    """Turn an error of the library into a UserError; its type, status and message are the only clue to the cause."""
    try:
        yield
    except UserError:
        raise
    except Exception as fault:
        error: BaseException = fault
        from huggingface_hub.errors import LocalTokenNotFoundError

        while (status := getattr(getattr(error, "response", None), "status_code", None)) is None and error.__cause__:
            error = error.__cause__
        reason = getattr(error, "server_message", None) or str(error).strip() or type(error).__name__
        reason = " ".join(reason.split()).rstrip(".")
        sentence = f"The Hub did not take {name} ({reason}): see to it, then try again."
        if isinstance(error, LocalTokenNotFoundError):
            sentence = "The Hub needs to know who you are: log in with `hf auth login`, or set HF_TOKEN."
        elif status == 401:
            sentence = f"The Hub does not accept your token ({reason}): log in again with `hf auth login`."
        elif status == 403:
            sentence = f"You may not write to {name} on the Hub ({reason}): name a repository of yours, or log in with "
            sentence += "a token that may write, `hf auth login`."
        elif status is None and is_of_network(error):
            sentence = f"The Hub cannot be reached ({reason}): check the network, then try again."
        raise UserError(sentence) from fault
