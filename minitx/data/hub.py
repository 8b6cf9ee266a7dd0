"""Data sets on the Hugging Face Hub, read with its library `datasets`, with or without a network.

A fault of the network is tried again if that can help; every other one raises `UserError`. `quiet_datasets` and
`text_of` serve files as well.
"""

import http.client
import itertools
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from minitx.config import DataConfig
from minitx.system.errors import UserError, nearest, require

T = TypeVar("T")
WAITS = (1, 3, 9)  # seconds before each further try after a fault of the network
MAX_SECONDS = 20  # without progress, after which there is no further try; the library has its own within each


def read_split(config: DataConfig, split: str) -> Iterator[str]:
    """The texts of a split."""

    for row in patiently(config, lambda: iter(open_split(config, split))):
        yield from text_of(row, config.source, config.text_column)


def open_split(config: DataConfig, split: str) -> Any:
    """A split as the library's data set."""
    datasets = _library()
    retries, streaming = datasets.DownloadConfig(max_retries=2), bool(config.streaming)
    data = datasets.load_dataset(config.source, config.name, split=split, streaming=streaming, download_config=retries)
    if config.text_column in (data.column_names or []):
        data = data.select_columns([config.text_column])  # spares decoding the others
    return data


def revision(config: DataConfig) -> str:
    """The commit of the data set, from the Hub or, if that cannot be reached, from the library's cache."""
    (builder,) = patiently(config, lambda: iter([_library().load_dataset_builder(config.source, config.name)]))
    return str(builder.hash)


def patiently(config: DataConfig, items: Callable[[], Iterator[T]]) -> Iterator[T]:
    """Yield `items()`. After a fault of the network, wait, retry and skip the items already read."""
    done, progress = 0, time.monotonic()
    for wait in (*WAITS, None):
        try:
            for item in itertools.islice(items(), done, None):
                done, progress = done + 1, time.monotonic()
                yield item
            return
        except UserError:
            raise
        except Exception as error:
            if wait is None or time.monotonic() - progress > MAX_SECONDS or not _may_pass(error):
                raise _hub_error(config, error) from error
            time.sleep(wait)


def text_of(row: dict[str, Any], place: object, column: str) -> Iterator[str]:
    """The text of a row, if it is not null; raises `UserError` if the column is missing or holds something else."""
    require(
        column in row,
        f"data.text_column is {column}, but {place} has the columns {', '.join(row)}: name one of these"
        f"{nearest(column, list(row))}.",
    )
    text = row[column]
    require(
        text is None or isinstance(text, str),
        f"data.text_column is {column}, but that column of {place} holds {type(text).__name__}, not text: name another "
        f"of {', '.join(row)}.",
    )
    if text is not None:
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


def _may_pass(error: BaseException) -> bool:
    """Whether another try can help: the connection broke, timed out or ended early, or the server was busy."""
    from huggingface_hub import constants

    cause: BaseException | None = error
    broke = False
    while cause and not constants.HF_HUB_OFFLINE:
        if status := getattr(getattr(cause, "response", None), "status_code", None):
            return status >= 500 or status in (408, 429)
        broke |= is_of_network(cause) or "Consistency check failed" in str(cause)
        cause = cause.__cause__ or cause.__context__
    return broke


def is_of_network(error: BaseException) -> bool:
    """Whether the connection broke, timed out, or was never there."""
    return isinstance(error, ConnectionError | TimeoutError) or type(error).__module__.startswith("http")


def _hub_error(config: DataConfig, error: Exception) -> UserError:
    """A sentence for an error of the library, whose type and message are the only clue to the cause."""
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
    if is_of_network(error):
        return UserError(
            f"{place} cannot be fetched, since the Hub cannot be reached and the data set is not in the library's "
            f"cache ({message}): check the network, or name a file as data.source."
        )
    return UserError(f"{place} cannot be read ({message or type(error).__name__}): check data.source and data.name.")


def _library() -> Any:
    """The datasets library; offline if the Hub is silent, or it would try every file for half a minute."""
    from huggingface_hub import constants

    datasets = quiet_datasets()
    if constants.HF_HUB_OFFLINE:
        return datasets
    for wait in (1, 3, None):
        try:
            urllib.request.urlopen(constants.ENDPOINT, timeout=6).close()
            return datasets
        except urllib.error.HTTPError:
            return datasets  # an answer, if an unfriendly one
        except (OSError, ValueError, http.client.HTTPException) as error:
            if wait is None or isinstance(getattr(error, "reason", None), ConnectionRefusedError | socket.gaierror):
                break  # nobody listens
            time.sleep(wait)
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    return datasets
