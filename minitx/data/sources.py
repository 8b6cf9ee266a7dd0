"""Where text comes from: the documentation that comes with Python, sequences that repeat, files, or a data set on the
Hugging Face Hub.

`read(config, split)` yields documents as `Piece`s, in an order that never changes and with every newline and space
as it was; `identity(config)` says what that text depends on, for a cache. All that is wrong with a source ends in
`UserError`.
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

BUILDERS = {".txt": "text", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}  # extension → library's builder
EXTENSIONS = (*BUILDERS, ".txt.gz", ".jsonl.gz", ".csv.gz")
BLOCK = 1 << 20  # bytes of a .txt file read at once
MAX_RATIO, UNSUSPICIOUS = 200, 64 << 20  # times its size that a .gz file may unpack to, and bytes that it always may


class Piece(NamedTuple):
    """A stretch of a document's text; `last` where the document ends with it."""

    text: str
    last: bool


def read(config: DataConfig, split: str) -> Iterator[Piece]:
    """The documents of `split` (which only a Hub data set knows), at most `max_documents`, empty ones left out."""
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
    """What the text of the source depends on besides `config`: versions, files, or the data set's revision."""
    if config.source == "python-docs":
        return {"python": sys.version, "folder": sysconfig.get_path("stdlib")}
    if config.source == "repeats":
        return {"documents": REPEATED_DOCUMENTS, "letters": REPEATED_LETTERS}
    if is_path(config.source):
        stats = [(path, path.stat()) for path in files(config.source)]
        return {"files": [[str(path.absolute()), stat.st_size, stat.st_mtime_ns] for path, stat in stats]}
    return {"revision": revision(config)}


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


# --- sequences that repeat ---


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
    limit, size = max(path.stat().st_size * MAX_RATIO, UNSUSPICIOUS), 0
    with gzip.open(path, "rb") as file:
        while block := file.read(BLOCK):
            size += len(block)
            require(
                size <= limit,
                f"{path} unpacks to more than {MAX_RATIO} times its size, as no text does: unpack it yourself if you "
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
    datasets = quiet_datasets()
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
        yield from text_of(row, path, config.text_column)


def _from_latin(value: Any) -> Any:
    """Bytes that were read as Latin-1 as the UTF-8 that they are."""
    return value.encode("latin-1").decode("utf-8", errors="replace") if isinstance(value, str) else value


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
