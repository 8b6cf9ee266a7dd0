"""Where text comes from: the documentation that comes with Python, sequences that repeat, files, or a data set on the
Hugging Face Hub.

`read(config, split)` yields documents as `Piece`s, in an order that never changes and with every newline and space
as it was; `identity(config)` says what that text depends on, for a cache. All that is wrong with a source ends in
`UserError`.
"""

from __future__ import annotations

import ast
import codecs
import contextlib
import glob
import gzip
import http.client
import importlib
import inspect
import itertools
import random
import socket
import sys
import sysconfig
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from minitx.config import DataConfig, UserError, nearest, require

BUILDERS = {".txt": "text", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}  # extension → library's builder
EXTENSIONS = (*BUILDERS, ".txt.gz", ".jsonl.gz", ".csv.gz")
WAITS = (1, 3, 9)  # seconds before each further try of what the network spoiled
PATIENCE = 20  # seconds after which there is no further try; the library has its own within each
BLOCK = 1 << 20  # bytes of a .txt file read at once
MOST_RATIO, UNSUSPICIOUS = 200, 64 << 20  # times its size that a .gz file may unpack to, and bytes that it always may

# Parts of the standard library that are not modules to read about, or hold machine-made tables.
SKIPPED = {"test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo", "encodings", "ensurepip", "pydoc_data"}
SHORTEST_MODULE = 200  # characters
REPEATED_DOCUMENTS, REPEATED_LETTERS = 30_000, "abcdefghijklmnop"


class Piece(NamedTuple):
    """A stretch of a document's text; `last` where the document ends with it."""

    text: str
    last: bool


def read(config: DataConfig, split: str) -> Iterator[Piece]:
    """The documents of `split` (which only a Hub data set knows), at most `max_documents`, empty ones left out."""
    if config.source == "python-docs":
        pieces: Iterator[Piece] = (Piece(text, True) for text in python_docs())
    elif config.source == "repeats":
        pieces = (Piece(text, True) for text in repeats())
    elif is_path(config.source):
        pieces = (piece for path in files(config.source) for piece in _read_file(path, config))
    else:
        pieces = (Piece(text, True) for text in _read_hub(config, split))
    pieces = _first_documents(pieces, config.max_documents)
    return _joined(pieces) if config.join_rows else pieces


def identity(config: DataConfig) -> dict[str, Any]:
    """What the text of the source depends on besides `config`: versions, files, or the data set's revision."""
    if config.source == "python-docs":
        return {"python": sys.version, "folder": sysconfig.get_path("stdlib")}
    if config.source == "repeats":
        return {"documents": REPEATED_DOCUMENTS, "letters": REPEATED_LETTERS}
    if is_path(config.source):
        stats = [(path, path.stat()) for path in files(config.source)]
        return {"files": [[str(path.absolute()), stat.st_size, stat.st_mtime_ns] for path, stat in stats]}
    return {"revision": _hub_revision(config)}


def is_path(source: str) -> bool:
    """Whether `source` names files here; otherwise it is the name of a data set on the Hub."""
    looks = source.startswith((".", "/", "~", "\\")) or source.lower().endswith(EXTENSIONS) or "\\" in source
    return looks or glob.has_magic(source) or Path(source).is_absolute() or Path(source).exists()


def files(source: str) -> list[Path]:
    """The supported files of a file, folder or glob, sorted by path. Raises `UserError` where there are none."""
    path = Path(source).expanduser()
    supported = f"{', '.join(BUILDERS)} or .gz of the first three"
    if path.is_file():
        require(
            path.name.lower().endswith(EXTENSIONS),
            f"data.source {source} is not a kind of file that minitx reads: use {supported}.",
        )
        return [path]
    if path.is_dir():
        found: Iterable[Path] = path.rglob("*")
    elif glob.has_magic(source):
        found = map(Path, glob.iglob(str(path), recursive=True))  # noqa: PTH207  Path.glob takes no absolute pattern
    else:
        raise UserError(f"data.source {source} does not exist: check the path.")
    chosen = sorted(path for path in found if path.name.lower().endswith(EXTENSIONS) and path.is_file())
    require(bool(chosen), f"data.source {source} holds no file that minitx reads: it takes {supported}.")
    return chosen


# --- the documentation that comes with Python ---


def python_docs() -> Iterator[str]:
    """A document for each topic of the language reference, then one for each module of the standard library."""
    topics: dict[str, str] = {}
    with contextlib.suppress(ImportError):  # some systems leave it out of Python
        topics = importlib.import_module("pydoc_data.topics").topics
    yield from dict.fromkeys(topics[name] for name in sorted(topics))  # two names may share a text
    library = Path(sysconfig.get_path("stdlib"))
    seen: set[str] = set()
    found = bool(topics)
    for path in sorted(library.rglob("*.py"), key=lambda path: path.relative_to(library).parts):
        parts = path.relative_to(library).with_suffix("").parts
        # A hyphen marks what is no module: site-packages, dist-packages, lib-dynload, config-3.11-….
        if SKIPPED.isdisjoint(parts) and not any("-" in part for part in parts):
            text = _module_document(path, ".".join(parts).removesuffix(".__init__"), seen)
            if len(text) >= SHORTEST_MODULE:
                found = True
                yield text
    require(found, f"python-docs finds no modules in {library}: name a file as data.source.")


def _module_document(path: Path, name: str, seen: set[str]) -> str:
    """The docstrings of a module under the names they belong to; those in `seen` are left out, the rest put there."""
    try:
        with warnings.catch_warnings(action="ignore"):
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):  # such as a file that is there to be wrong
        return ""
    entries = []
    for title, docstring in _docstrings(tree, name):
        text = inspect.cleandoc(docstring).strip()
        if text and text not in seen:
            seen.add(text)
            entries.append(f"{title}\n{text}\n")
    return "\n".join(entries)


def _docstrings(node: ast.Module | ast.ClassDef, name: str, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(title, docstring) of a module or class and of what it defines, in the order of the source."""
    if docstring := ast.get_docstring(node, clean=False):
        yield name, docstring
    for child in node.body:
        if isinstance(child, ast.ClassDef):
            bases = f"({', '.join(map(ast.unparse, child.bases))})" if child.bases else ""
            yield from _docstrings(child, f"class {prefix}{child.name}{bases}", f"{prefix}{child.name}.")
        elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(child, clean=False)
            if docstring:
                yield f"{prefix}{child.name}({ast.unparse(child.args)})", docstring


# --- sequences that repeat ---


def repeats() -> Iterator[str]:
    """Documents of random letters that come twice, such as "dkabjmiedkabjmie": what comes next the second time can only
    be looked up (after the random sequences of Olsson et al. 2022).

    8 to 16 different letters of 16, so that neither the letters nor the distance back give it away. Always the same
    documents.
    """
    draw = random.Random(0)
    for _ in range(REPEATED_DOCUMENTS):
        yield "".join(draw.sample(REPEATED_LETTERS, draw.randint(8, 16))) * 2


# --- files ---


def _read_file(path: Path, config: DataConfig) -> Iterator[Piece]:
    extension = Path(path.name.lower().removesuffix(".gz")).suffix
    try:
        if path.name.lower().endswith(".gz"):
            _check_ratio(path)
        if extension == ".txt":
            yield from _read_text(path, config.encoding_errors)
        elif path.stat().st_size:  # the library fails on an empty file
            yield from (Piece(text, True) for text in _column(path, BUILDERS[extension], config))
    except (OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read ({error}): check the file.") from error


def _open(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.name.lower().endswith(".gz") else path.open("rb")


def _check_ratio(path: Path) -> None:
    """Raise `UserError` for a .gz file that was made to fill the disk: gone through once, nothing of it kept."""
    limit, size = max(path.stat().st_size * MOST_RATIO, UNSUSPICIOUS), 0
    with gzip.open(path, "rb") as file:
        while block := file.read(BLOCK):
            size += len(block)
            require(
                size <= limit,
                f"{path} unpacks to more than {MOST_RATIO} times its size, as no text does: unpack it yourself if you "
                "trust it.",
            )


def _read_text(path: Path, errors: str = "strict") -> Iterator[Piece]:
    """A .txt file as one document. Plain Python, since the library's text builder turns each \\r\\n and \\r into \\n
    and holds a whole document in memory."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    start = 0  # where in the file the bytes start that the decoder is given next
    with _open(path) as file:
        while block := file.read(BLOCK):
            try:
                text = decoder.decode(block)
            except UnicodeDecodeError as error:
                raise _not_utf8(path, start - (len(error.object) - len(block)) + error.start) from error
            start += len(block)
            if text:
                yield Piece(text, False)
    pending = len(decoder.getstate()[0])
    if pending and errors == "strict":
        raise _not_utf8(path, start - pending)
    if pending:
        yield Piece(decoder.decode(b"", final=True), False)
    if start:
        yield Piece("", True)


def _not_utf8(path: Path, offset: int) -> UserError:
    return UserError(
        f"{path} is not valid UTF-8 at byte {offset}: save it as UTF-8, or set data.encoding_errors to replace."
    )


def _open_rows(path: Path, builder: str, config: DataConfig) -> Iterable[dict[str, Any]]:
    """The rows of a file, read as they are asked for: without `streaming` the library would write a copy of all."""
    datasets = _library()
    options: dict[str, Any] = {} if builder == "parquet" else {"encoding_errors": config.encoding_errors}
    if builder == "json" and config.encoding_errors == "replace":
        options["encoding"] = "utf8"  # by its usual name the library decodes nothing, and pyarrow fails
    if builder == "csv":  # keep "NA", "007" and the empty string as they are written
        column = config.text_column
        if config.encoding_errors == "replace":  # pandas decodes a converter's column strictly; `_column` puts it right
            column, options["encoding"] = column.encode().decode("latin-1"), "latin-1"
        options |= {"converters": {column: str}, "keep_default_na": False, "na_filter": False}
    data_files = glob.escape(str(path.absolute()))
    rows: Iterable[dict[str, Any]] = datasets.load_dataset(
        builder, data_files={"train": [data_files]}, split="train", streaming=True, **options
    )
    return rows


def _column(path: Path, builder: str, config: DataConfig) -> Iterator[str]:
    """The texts of a file's rows, with the library's errors turned into sentences about the file."""
    rows: Iterator[dict[str, Any]] | None = None
    while True:
        try:
            rows = rows or iter(_open_rows(path, builder, config))
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:  # pyarrow, pandas and the library each have their own
            if not path.name.lower().endswith(".parquet"):
                for _ in _read_text(path):  # names the byte, where that is what is wrong
                    pass
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise UserError(f"{path} cannot be read ({reason}): check the file.") from error
        if builder == "csv" and config.encoding_errors == "replace":
            row = {_from_latin(name): _from_latin(value) for name, value in row.items()}
        yield from _text_of(row, path, config.text_column)


def _from_latin(value: Any) -> Any:
    """Bytes that were read as Latin-1 as the UTF-8 that they are."""
    return value.encode("latin-1").decode("utf-8", errors="replace") if isinstance(value, str) else value


def _text_of(row: dict[str, Any], place: object, column: str) -> Iterator[str]:
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


# --- the Hub ---


def _read_hub(config: DataConfig, split: str) -> Iterator[str]:
    """The texts of a split; where the network fails in between, from there on again after a while."""
    seen, began = 0, time.monotonic()
    for wait in (*WAITS, None):
        try:
            for row in itertools.islice(_open_split(config, split), seen, None):
                seen += 1
                yield from _text_of(row, config.source, config.text_column)
            return
        except UserError:
            raise
        except Exception as error:
            if wait is None or time.monotonic() - began > PATIENCE or not _may_pass(error):
                raise _hub_error(config, error) from error
            time.sleep(wait)


def _open_split(config: DataConfig, split: str) -> Iterator[dict[str, Any]]:
    datasets = _library()
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


def _hub_revision(config: DataConfig) -> str:
    """The commit of the data set that the Hub, or where it cannot be reached the library's cache, has."""
    datasets, began = _library(), time.monotonic()
    for wait in (*WAITS, None):
        _go_offline_if_unreachable()
        try:
            return str(datasets.load_dataset_builder(config.source, config.name).hash)
        except Exception as error:
            if wait is None or time.monotonic() - began > PATIENCE or not _may_pass(error):
                raise _hub_error(config, error) from error
            time.sleep(wait)
    raise AssertionError("the last try returns or raises")


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


def _library() -> Any:
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


# --- all of them ---


def _joined(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """All the text as one document, unchanged."""
    found = False
    for piece in pieces:
        found = True
        yield Piece(piece.text, False)
    if found:
        yield Piece("", True)


def _first_documents(pieces: Iterator[Piece], count: int | None) -> Iterator[Piece]:
    """The first `count` documents that are not empty; an end alone closes a document only where one is open."""
    done, is_open = 0, False
    for piece in pieces:
        is_open = is_open or bool(piece.text)
        if not is_open:
            continue
        yield piece
        if piece.last:
            done, is_open = done + 1, False
            if done == count:
                return
