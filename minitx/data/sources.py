"""Where text comes from: Python's documentation, random letters, files, or a data set on the Hugging Face Hub.

`read(config, split)` yields documents as `Piece`s, always in the same order, with every newline and space unchanged.
`identity(config)` says what that text depends on, for a cache. A source that cannot be read raises `UserError`.
"""

from __future__ import annotations

import codecs
import glob
import gzip
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

from minitx.config import DataConfig
from minitx.data.builtin import REPEATED_DOCUMENTS, REPEATED_LETTERS, python_docs, repeated_letters
from minitx.data.hub import quiet_datasets, read_split, revision, text_of
from minitx.system.errors import UserError, require

BUILDERS = {".txt": "text", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
"""File extension → the builder of the datasets library that reads it."""
EXTENSIONS = (*BUILDERS, ".txt.gz", ".jsonl.gz", ".csv.gz")
BLOCK = 1 << 20
"""Bytes of a .txt file read at once."""
MAX_UNPACKED_RATIO, MIN_SUSPICIOUS = 200, 64 << 20
"""A .gz file may unpack to so many times its size, and always to so many bytes."""


class Piece(NamedTuple):
    """A stretch of a document's text; `last` if the document ends with it."""

    text: str
    last: bool


def read(config: DataConfig, split: str) -> Iterator[Piece]:
    """The documents of `split` (which only a Hub data set has), at most `max_documents`; empty ones are left out."""
    if config.source == "python-docs":
        pieces: Iterator[Piece] = (Piece(text, True) for text in python_docs())
    elif config.source == "repeats":
        pieces = (Piece(text, True) for text in repeated_letters())
    elif is_path(config.source):
        pieces = (piece for path in files(config.source) for piece in _read_file(path, config))
    else:
        pieces = (Piece(text, True) for text in read_split(config, split))
    pieces = _first_documents(pieces, config.max_documents)
    return _joined(pieces) if config.join_rows else pieces


def identity(config: DataConfig) -> dict[str, Any]:
    """What the text depends on besides `config`: versions, files, or the revision of the data set."""
    if config.source == "python-docs":
        return {"python": sys.version, "folder": sysconfig.get_path("stdlib")}
    if config.source == "repeats":
        return {"documents": REPEATED_DOCUMENTS, "letters": REPEATED_LETTERS}
    if is_path(config.source):
        stats = [(path, path.stat()) for path in files(config.source)]
        return {"files": [[str(path.absolute()), stat.st_size, stat.st_mtime_ns] for path, stat in stats]}
    return {"revision": revision(config)}


def is_on_hub(source: str) -> bool:
    """Whether `source` names a data set on the Hub."""
    return source not in ("python-docs", "repeats") and not is_path(source)


def is_path(source: str) -> bool:
    """Whether `source` names files on this machine."""
    is_like_path = source.startswith((".", "/", "~")) or "\\" in source or source.lower().endswith(EXTENSIONS)
    return is_like_path or glob.has_magic(source) or Path(source).is_absolute() or Path(source).exists()


def files(source: str) -> list[Path]:
    """The files that a file, folder or glob names, sorted by path; raises `UserError` if minitx reads none of them."""
    path = Path(source).expanduser()
    supported = f"{', '.join(BUILDERS)} or .gz of the first three"
    if path.is_file():
        require(
            path.name.lower().endswith(EXTENSIONS),
            f"data.source {source} is not a kind of file that minitx reads: use {supported}.",
        )
        return [path]
    if path.is_dir():
        candidates: Iterable[Path] = path.rglob("*")
    elif glob.has_magic(source):
        candidates = map(Path, glob.iglob(str(path), recursive=True))  # noqa: PTH207  Path.glob takes no absolute pattern
    else:
        raise UserError(f"data.source {source} does not exist: check the path.")
    chosen = sorted(path for path in candidates if path.name.lower().endswith(EXTENSIONS) and path.is_file())
    require(bool(chosen), f"data.source {source} holds no file that minitx reads: it takes {supported}.")
    return chosen


def _read_file(path: Path, config: DataConfig) -> Iterator[Piece]:
    extension = Path(path.name.lower().removesuffix(".gz")).suffix
    try:
        if path.name.lower().endswith(".gz"):
            _check_ratio(path)
        if extension == ".txt":
            yield from _read_text(path, config.encoding_errors)
        elif path.stat().st_size:  # the library fails on an empty file
            yield from (Piece(text, True) for text in _read_column(path, BUILDERS[extension], config))
    except (OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read ({error}): check the file.") from error


def _open(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb")) if path.name.lower().endswith(".gz") else path.open("rb")


def _check_ratio(path: Path) -> None:
    """Raise `UserError` for a .gz file that was made to fill the disk; unpacks it once and keeps nothing."""
    limit, size = max(path.stat().st_size * MAX_UNPACKED_RATIO, MIN_SUSPICIOUS), 0
    with gzip.open(path, "rb") as file:
        while block := file.read(BLOCK):
            size += len(block)
            require(
                size <= limit,
                f"{path} unpacks to more than {MAX_UNPACKED_RATIO} times its size, as no text does: unpack it yourself "
                "if you trust it.",
            )


def _read_text(path: Path, errors: str = "strict") -> Iterator[Piece]:
    """A .txt file as one document. The library's text builder would turn \\r\\n and \\r into \\n, and hold the whole
    document in memory."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors)
    start = 0  # where in the file the next block starts
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
    remedy = "save it as UTF-8, or set data.encoding_errors to replace"
    if path.name.lower().removesuffix(".gz").endswith(".csv"):
        remedy = "convert it to UTF-8, for data.encoding_errors replace does not work for .csv"
    return UserError(f"{path} is not valid UTF-8 at byte {offset}: {remedy}.")


def _open_rows(path: Path, builder: str, config: DataConfig) -> Iterable[dict[str, Any]]:
    """The rows of a file, read one by one: without `streaming` the library would first write a copy of all."""
    options: dict[str, Any] = {}
    if builder == "json":
        options = {"encoding_errors": config.encoding_errors}
        if config.encoding_errors == "replace":
            options["encoding"] = "utf8"  # under its usual name the library decodes nothing, and pyarrow fails
    if builder == "csv":  # keep "NA", "007" and the empty string as they are written
        options = {"converters": {config.text_column: str}, "keep_default_na": False, "na_filter": False}
    data_files = glob.escape(str(path.absolute()))
    rows: Iterable[dict[str, Any]] = quiet_datasets().load_dataset(
        builder, data_files={"train": [data_files]}, split="train", streaming=True, **options
    )
    return rows


def _read_column(path: Path, builder: str, config: DataConfig) -> Iterator[str]:
    """The texts in a file's rows; an error of the library becomes a sentence about the file."""
    try:
        for row in _open_rows(path, builder, config):
            yield from text_of(row, path, config.text_column)
    except UserError:
        raise
    except Exception as error:  # pyarrow, pandas and the library each have their own
        if builder != "parquet":
            for _ in _read_text(path):  # names the byte that is not UTF-8, if that is the cause
                pass
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason}): check the file.") from error


def _joined(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """All the text as one document."""
    piece = None
    for piece in pieces:
        yield Piece(piece.text, False)
    if piece:
        yield Piece("", True)


def _first_documents(pieces: Iterator[Piece], count: int | None) -> Iterator[Piece]:
    """The first `count` documents that are not empty (all of them for None)."""
    done, is_open = 0, False
    for piece in pieces:
        is_open = is_open or bool(piece.text)
        if not is_open:  # the end of an empty document
            continue
        yield piece
        if piece.last:
            done, is_open = done + 1, False
            if done == count:
                return
