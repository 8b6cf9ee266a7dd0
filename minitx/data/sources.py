"""Where text comes from: installed documentation, random letters, tales, files, or a data set on the Hugging Face Hub.

`read(config, split, seed)` yields documents as `Piece`s, always in the same order, every space and newline unchanged:
only in .txt files, \\r\\n and \\r are read as \\n.
`identity(config)` says what that text depends on, for a cache. A source that cannot be read raises `UserError`.
"""

import codecs
import glob
import gzip
import io
import itertools
import json
import math
import re
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from minitx.config import DataConfig
from minitx.data.builtin import (
    REPEATED_DOCUMENTS,
    REPEATED_LETTERS,
    RULES,
    installed,
    package_docs,
    python_docs,
    repeated_letters,
)
from minitx.data.hub import is_of_network, open_split, quiet_datasets, read_split, revision, text_of
from minitx.data.tales import language
from minitx.system.errors import UserError, require

TALES = 20_000  # that train, if data.max_documents is not set; a twentieth as many validate
BUILT_IN = ("python-docs", "repeats", "tales")
BUILDERS = {".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}  # file extension → builder of the datasets library
EXTENSIONS = (".txt", *BUILDERS, ".txt.gz", ".jsonl.gz", ".csv.gz")
Row = dict[str, Any]
SEARCH = 20  # seconds at most to find the row of a stream that cannot be read
BLOCK = 1 << 20  # bytes of a .txt or .gz file read at once
MAX_UNPACKED_RATIO = 200  # times its size that a .gz file may unpack to
MIN_SUSPICIOUS = 64 << 20  # bytes that any .gz file may unpack to


class Piece(NamedTuple):
    """A stretch of a document's text; `last` if the document ends with it."""

    text: str
    last: bool
    only_trains: bool = False
    """Whether its document is never held out."""


def splits(config: DataConfig) -> dict[str, str]:
    """The splits to read, "train" and perhaps "val", with their names in the source: tales and the Hub have several."""
    if config.source == "tales":
        return {"train": "train", "val": "validation"}
    return {"train": config.split} | ({} if config.val_split is None else {"val": config.val_split})


def read(config: DataConfig, split: str, seed: int) -> Iterator[Piece]:
    """The documents of `split`, at most `max_documents`; empty ones are left out. `seed` decides the tales."""
    pieces: Iterator[Piece]
    if config.source == "tales":
        count = config.max_documents or TALES
        count = count if split == "train" else max(1, count // 20)
        pieces = (
            _document(tale.text)
            for tale in itertools.islice(language.tales("train" if split == "train" else "validation", seed), count)
        )
    elif config.source == "python-docs":
        seen: set[str] = set()
        more = (Piece(text, True, only_trains=True) for text in package_docs(seen))
        pieces = itertools.chain(map(_document, python_docs(seen)), more)
    elif config.source == "repeats":
        pieces = map(_document, repeated_letters())
    elif is_path(config.source):
        pieces = (piece for path in files(config.source) for piece in _read_file(path, config))
    else:
        pieces = map(_document, read_split(config, split))
    pieces = _first_documents(pieces, config.max_documents)
    return _joined(pieces) if config.join_rows else pieces


def identity(config: DataConfig) -> dict[str, Any]:
    """What the text depends on besides `config`: versions, files, or the revision of the data set."""
    if config.source == "python-docs":
        library = sysconfig.get_path("stdlib")
        return {"python": sys.version, "folder": library, "rules": RULES, "packages": installed()}
    if config.source == "repeats":
        return {"documents": REPEATED_DOCUMENTS, "letters": REPEATED_LETTERS}
    if config.source == "tales":
        return {"grammar": language.GRAMMAR, "documents": TALES}
    if is_path(config.source):
        stats = [(path, path.stat()) for path in files(config.source)]
        return {
            "newlines": "\n",
            "files": [[str(path.absolute()), stat.st_size, stat.st_mtime_ns] for path, stat in stats],
        }
    return {"revision": revision(config)}


def row_stream(config: DataConfig) -> Any:
    """The rows of a Hub data set's split, or of `row_files`, as an `IterableDataset` of the datasets library."""
    if is_on_hub(config.source):
        return open_split(config, config.split)
    paths, builder = row_files(config)
    return _open_files([path for path in paths if path.stat().st_size], builder, config)


def row_files(config: DataConfig) -> tuple[list[Path], str]:
    """The files to stream, and their builder in the datasets library; raises `UserError` for another source."""
    paths = files(config.source) if is_path(config.source) else []
    kinds = {Path(path.name.lower().removesuffix(".gz")).suffix for path in paths}
    require(
        len(kinds) == 1 and kinds <= set(BUILDERS),
        f"data.streaming is train, but data.source is {config.source}: take a data set on the Hub, or files of one "
        "kind out of .jsonl, .csv and .parquet.",
    )
    return paths, BUILDERS[kinds.pop()]


def is_on_hub(source: str) -> bool:
    """Whether `source` names a data set on the Hub."""
    return source not in BUILT_IN and not is_path(source)


def is_path(source: str) -> bool:
    """Whether `source` names files on this machine."""
    is_like_path = source.startswith((".", "/", "~")) or "\\" in source or source.lower().endswith(EXTENSIONS)
    return is_like_path or glob.has_magic(source) or Path(source).is_absolute() or Path(source).exists()


def files(source: str) -> list[Path]:
    """The files that a file, folder or glob names, sorted by path; raises `UserError` if minitx reads none of them."""
    path = Path(source).expanduser()
    candidates: Iterable[Path] = [path]
    if path.is_dir():
        candidates = [file for file in path.rglob("*") if not is_hidden(file.relative_to(path))]
    elif glob.has_magic(source) and not path.is_file():
        candidates = list(map(Path, glob.iglob(str(path), recursive=True)))  # noqa: PTH207  Path.glob: none that is absolute
        require(bool(candidates), f"data.source {source} matches no file: check the pattern.")
    else:
        require(path.is_file(), f"data.source {source} does not exist: check the path.")
    chosen = sorted(path for path in candidates if path.name.lower().endswith(EXTENSIONS) and path.is_file())
    supported = f".txt, {', '.join(BUILDERS)} or .gz of the first three"
    require(bool(chosen), f"data.source {source} holds no file that minitx reads: use {supported}.")
    return chosen


def is_hidden(path: Path) -> bool:
    """Whether the name of a file, or of a folder on the way to it, begins with a dot."""
    return any(part.startswith(".") for part in path.parts)


def _read_file(path: Path, config: DataConfig) -> Iterator[Piece]:
    extension = Path(path.name.lower().removesuffix(".gz")).suffix
    try:
        if path.name.lower().endswith(".gz"):
            _check_ratio(path)
        if extension == ".txt":
            yield from _read_text(path, config.encoding_errors)
        elif path.stat().st_size:  # the library fails on an empty file
            yield from map(_document, _read_column(path, BUILDERS[extension], config))
    except (OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read ({error}): check the file.") from error


def _check_ratio(path: Path) -> None:
    """Raise `UserError` for a .gz file that was made to fill the disk; unpacks it once and keeps nothing."""
    limit, size = max(path.stat().st_size * MAX_UNPACKED_RATIO, MIN_SUSPICIOUS), 0
    with gzip.open(path, "rb") as file:
        while block := file.read(BLOCK):
            size += len(block)
            require(
                size <= limit,
                f"{path} unpacks to more than {MAX_UNPACKED_RATIO} times its size: unpack it yourself if you trust it.",
            )


def _read_text(path: Path, errors: str = "strict") -> Iterator[Piece]:
    """A .txt file as one document, block by block, each line end as \\n."""
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")(errors), translate=True)
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        block = None
        while block != b"":
            block = file.read(BLOCK)
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                offset = file.tell() - len(error.object) + error.start
                remedy = "save it as UTF-8, or set data.encoding_errors to replace"
                if path.name.lower().removesuffix(".gz").endswith(".csv"):
                    remedy = "convert it to UTF-8, for data.encoding_errors replace does not work for .csv"
                raise UserError(f"{path} is not valid UTF-8 at byte {offset}: {remedy}.") from error
            yield Piece(text, last=not block)


def _read_column(path: Path, builder: str, config: DataConfig) -> Iterator[str]:
    """The texts in a file's rows; an error of the library becomes a sentence about the file."""
    try:
        for row in _open_files([path], builder, config):
            yield from text_of(row, path, config.text_column)
    except UserError:
        raise
    except Exception as error:  # pyarrow, pandas and the library each have their own
        reason = _in_words(error)
        raise _fault(path, reason, math.inf) or UserError(f"{path} cannot be read ({reason}): check it.") from error


def streamed(config: DataConfig, rows: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """`rows()` of `row_stream`; where the library cannot read files, a `UserError` names file and line."""
    try:
        yield from rows()
    except Exception as error:
        if isinstance(error, UserError) or is_of_network(error) or is_on_hub(config.source):
            raise
        reason, end = _in_words(error), time.monotonic() + SEARCH
        found = (_fault(path, reason, end) for path in row_files(config)[0])
        remedy = "give all rows the same columns, or leave data.streaming out to prepare the text"
        unknown = UserError(f"data.source {config.source} cannot be read ({reason}): {remedy}.")
        raise next(filter(None, found), unknown) from error


def _in_words(error: Exception) -> str:
    """What an error says, without the row, which counts from somewhere in the file."""
    return re.sub(r"\.? in row \d+$", "", " ".join(str(error).split())) or type(error).__name__


def _fault(path: Path, reason: str, end: float) -> UserError | None:
    """What is wrong with a file of rows, if `time.monotonic()` is below `end` when it is found."""
    kind = Path(path.name.lower().removesuffix(".gz")).suffix
    try:
        if kind == ".parquet":
            next(iter(_open_files([path], "parquet", DataConfig())), None)
            return None
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
            for number, line in enumerate(itertools.takewhile(lambda line: time.monotonic() < end, file), 1):
                if not _is_row(line.decode()) and kind == ".jsonl":
                    what = f"{path} has no JSON object in line {number} ({reason})"
                    return UserError(f"{what}: mend or remove that line.")
    except UnicodeDecodeError:
        for _ in _read_text(path):  # names the byte
            pass
    except Exception as error:
        return UserError(f"{path} cannot be read ({_in_words(error)}): check the file.")
    return None


def _is_row(line: str) -> bool:
    """Whether a line of a .jsonl file is an object, or empty."""
    try:
        return not line.strip() or isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _open_files(paths: list[Path], builder: str, config: DataConfig) -> Any:
    """The rows of files; without streaming, the library would first write a copy of them all."""
    options: dict[str, Any] = {}
    if builder == "json":
        options = {"encoding_errors": config.encoding_errors}
        if config.encoding_errors == "replace":
            options["encoding"] = "utf8"  # under its usual name the library decodes nothing, and pyarrow fails
    if builder == "csv":  # keep "NA", "007" and the empty string as they are written
        options = {"converters": {config.text_column: str}, "keep_default_na": False, "na_filter": False}
    options["data_files"] = {"train": [glob.escape(str(path.absolute())) for path in paths]}
    return quiet_datasets().load_dataset(builder, split="train", streaming=True, **options)


def _document(text: str) -> Piece:
    return Piece(text, last=True)


def _joined(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """All the text as one document."""
    piece = None
    for piece in pieces:
        yield Piece(piece.text, last=False)
    if piece:
        yield _document("")


def _first_documents(pieces: Iterator[Piece], count: int | None) -> Iterator[Piece]:
    """The first `count` documents that are not empty (all of them for None)."""
    done, is_open = 0, False
    for piece in pieces:
        is_open = is_open or bool(piece.text)
        if is_open:  # else it is the end of an empty document
            yield piece
        if is_open and piece.last:
            done, is_open = done + 1, False
            if done == count:
                return
