"""Data sets on the Hugging Face Hub, read with its library `datasets`, with or without a network.

`read_split` yields the texts of a split, `revision` says which commit they are of. What the network spoils is tried
again where that can help; all that is wrong ends in `UserError`. `quiet_datasets` and `text_of` serve
for files as well.
"""

from __future__ import annotations

import http.client
import itertools
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from minitx.config import DataConfig
from minitx.system.errors import UserError, nearest, require

WAITS = (1, 3, 9)  # seconds before each further try of what the network spoiled
PATIENCE = 20  # seconds after which there is no further try; the library has its own within each


def read_split(config: DataConfig, split: str) -> Iterator[str]:
    """The texts of a split; where the network fails in between, from there on again after a while."""
    seen, began = 0, time.monotonic()
    for wait in (*WAITS, None):
        try:
            for row in itertools.islice(_open_split(config, split), seen, None):
                seen += 1
                yield from text_of(row, config.source, config.text_column)
            return
        except UserError:
            raise
        except Exception as error:
            if wait is None or time.monotonic() - began > PATIENCE or not _may_pass(error):
                raise _hub_error(config, error) from error
            time.sleep(wait)


def revision(config: DataConfig) -> str:
    """The commit of the data set that the Hub, or where it cannot be reached the library's cache, has."""
    datasets, began = quiet_datasets(), time.monotonic()
    for wait in (*WAITS, None):
        _go_offline_if_unreachable()
        try:
            return str(datasets.load_dataset_builder(config.source, config.name).hash)
        except Exception as error:
            if wait is None or time.monotonic() - began > PATIENCE or not _may_pass(error):
                raise _hub_error(config, error) from error
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def text_of(row: dict[str, Any], place: object, column: str) -> Iterator[str]:
    """The text of a row: none where it is null. Raises `UserError` where the column is missing or holds no text."""
    require(
        column in row,
        f"data.text_column is {column}, but {place} has the columns {', '.join(row)}: name one of these"
        f"{nearest(column, list(row))}.",
    )
    text = row[column]
    if text is None:
        return
    require(
        isinstance(text, str),
        f"data.text_column is {column}, but that column of {place} holds {type(text).__name__}, not text: name another "
        f"of {', '.join(row)}.",
    )
    yield text


def quiet_datasets() -> Any:
    """The datasets library, without its progress bars and log lines."""
    import datasets
    import huggingface_hub

    datasets.disable_progress_bars()
    datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 3  # of 20
    datasets.config.STREAMING_READ_RETRY_INTERVAL = datasets.config.STREAMING_OPEN_RETRY_INTERVAL = 1  # of 5 seconds
    datasets.config.STREAMING_READ_SERVER_UNAVAILABLE_RETRY_INTERVAL = 2  # of 20 seconds
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)
    huggingface_hub.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)
    return datasets


def _open_split(config: DataConfig, split: str) -> Iterator[dict[str, Any]]:
    datasets = quiet_datasets()
    _go_offline_if_unreachable()
    data = datasets.load_dataset(
        config.source,
        config.name,
        split=split,
        streaming=config.streaming,
        download_config=datasets.DownloadConfig(max_retries=2),
    )
    columns = data.column_names
    if columns and config.text_column in columns:
        data = data.select_columns([config.text_column])  # spares decoding the others
    return iter(data)


def _may_pass(error: BaseException) -> bool:
    """Whether trying again can help: the connection broke, timed out or ended early, or the server was busy."""
    import huggingface_hub

    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return False
    causes = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    for cause in causes:
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if status is not None:
            return status >= 500 or status in (408, 429)
    return any(
        isinstance(cause, ConnectionError | TimeoutError)
        or type(cause).__module__.startswith("http")
        or "Consistency check failed" in str(cause)
        for cause in causes
    )


def _hub_error(config: DataConfig, error: Exception) -> UserError:
    """One sentence for what the library raises, whose types and messages are the only clue to the cause."""
    from datasets.exceptions import DatasetNotFoundError

    place = f"Data set {config.source}"
    message = " ".join(str(error).split())
    if isinstance(error, DatasetNotFoundError):
        return UserError(
            f"data.source {config.source} is no file here, and no data set on the Hub that you may read: check the "
            "name, or log in with `hf auth login` if it is private or gated."
        )
    if "Bad split" in message or "Unknown split" in message:
        known = message.rpartition("[")[2].partition("]")[0].replace("'", "")
        return UserError(f"{place} lacks the split asked for ({message.split('. ')[0]}): it has {known}.")
    if "BuilderConfig" in message or "Config name is missing" in message or "in the cache" in message:
        return UserError(f"{place} needs another data.name than {config.name} ({message}).")
    if isinstance(error, (ConnectionError, TimeoutError)) or type(error).__module__.startswith("http"):
        return UserError(
            f"{place} cannot be fetched, since the Hub cannot be reached and the data set is not in the library's "
            f"cache ({message}): check the network, or name a file as data.source."
        )
    return UserError(f"{place} cannot be read ({message or type(error).__name__}): check data.source and data.name.")


def _go_offline_if_unreachable() -> None:
    """Without a network the library retries for half a minute for each file; ask once and let it use its cache."""
    import datasets
    import huggingface_hub

    if huggingface_hub.constants.HF_HUB_OFFLINE:
        return
    for wait in (1, 3, None):
        try:
            urllib.request.urlopen(huggingface_hub.constants.ENDPOINT, timeout=6).close()
            return
        except urllib.error.HTTPError:
            return  # an answer, if an unfriendly one
        except (OSError, ValueError, http.client.HTTPException) as error:
            if wait is None or isinstance(getattr(error, "reason", None), ConnectionRefusedError | socket.gaierror):
                break  # nobody is there
            time.sleep(wait)
    huggingface_hub.constants.HF_HUB_OFFLINE = True
    datasets.config.HF_HUB_OFFLINE = True
