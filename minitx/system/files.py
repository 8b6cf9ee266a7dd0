"""Files that are whole, or known to be damaged: plain files alone are read, writes are atomic, JSON has a checksum."""

import contextlib
import hashlib
import io
import json
import math
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from minitx.system.errors import UserError, require
from minitx.system.fields import parse_json

MAX_BYTES = 64 << 20
"""Bytes of a file that is read as a whole; a larger one is refused."""
MAX_JSON = 4 << 20
"""Bytes of a JSON file, which may take 50 times that in memory."""


def open_regular(file: Path, most: float = math.inf) -> io.BufferedReader:
    """Open a plain file for reading; raises UserError for a folder, a pipe, a device, or more than `most` bytes."""
    try:
        status = file.stat()  # before it is opened: opening a pipe waits for its writer
        is_plain, size = stat.S_ISREG(status.st_mode), status.st_size
        require(is_plain, f"{file} cannot be read: it is a folder, a pipe or a device, not a plain file.")
        require(size <= most, f"{file} cannot be read: it has {size:,} bytes, but at most {most:,} are expected.")
        return file.open("rb")
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise UserError(f"{file} cannot be read ({getattr(error, 'strerror', None) or error}).") from error


def read_file(file: Path, most: int = MAX_BYTES) -> bytes:
    """The content of a plain file; raises as `open_regular`."""
    with open_regular(file, most) as opened, reading(file):
        return opened.read()


def open_log(file: Path) -> TextIO:
    """Open a plain file to add text at its end; raises UserError where a folder, a pipe or a device has its name."""
    is_free = file.is_file() or not os.path.lexists(file)
    require(is_free, f"{file} cannot be written: it is a folder, a pipe or a device, not a plain file.")
    return file.open("a", encoding="utf-8")


def write_atomically(file: Path, content: bytes) -> None:
    """Replace `file` by `content` so that a reader sees either the old or the new, even after a power cut."""
    with replacing(file) as draft, with_filename(file), draft.open("xb") as opened:
        opened.write(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name under which to write the file or folder `path`, which is renamed to `path` at the end, once on disk.

    After an exception, and after a kill at any moment, `path` is as it was or missing. The next call removes what a
    killed process left.
    """
    draft, old = draft_of(path), draft_of(path.with_name(f"{path.name}-old"))
    remove_drafts_of(path)
    try:
        yield draft
        with with_filename(path):
            for part in [*draft.rglob("*"), draft]:
                flush_to_disk(part)
        if draft.is_dir() and path.exists():
            path.rename(old)
        draft.replace(path)
    except BaseException:
        remove(draft)
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    flush_to_disk(path.parent)
    remove(old)


def draft_of(path: Path) -> Path:
    """Temporary name of a file or folder while this process writes it: .NAME-PID."""
    return path.with_name(f".{path.name}-{os.getpid()}")


def remove_drafts(folder: Path, pattern: str = ".+", *, spare_running: bool = False) -> None:
    """Remove what killed processes left half-written in `folder`, of files and folders whose name fits `pattern`.

    spare_running: leave the drafts of other processes that run.
    """
    for path in folder.glob(".*"):
        match = re.fullmatch(rf"\.(?:{pattern})-([0-9]+)", path.name)
        if match and not (spare_running and is_running(int(match[1]))):
            remove(path)


def remove_drafts_of(path: Path) -> None:
    """Remove what killed processes left half-written of `path`, and of `path`-2, `path`-3 …, if they run no more."""
    remove_drafts(path.parent, rf"{re.escape(path.name)}(?:-old|-[0-9]+)?", spare_running=True)


def is_running(process: int) -> bool:
    """Whether another process of this number runs; True where the system does not say."""
    if process == os.getpid() or os.name == "nt":  # on Windows, os.kill would end it
        return process != os.getpid()
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass
    return True


def remove(path: Path) -> None:
    """Remove a file or folder if it exists; of a link only the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def flush_to_disk(path: Path) -> None:
    """Wait until a file or folder is on disk; Windows cannot flush a folder."""
    if path.is_symlink() or (path.is_dir() and os.name == "nt"):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def with_filename(file: Path) -> Iterator[None]:
    """Add the name of the file to an `OSError` raised inside; that of a failed write has none."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(file)
        raise


@contextlib.contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turn an `OSError` raised inside, such as that of a bad disk, into a `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}).") from error


@contextlib.contextmanager
def writing(name: str | Path) -> Iterator[None]:
    """Turn an `OSError` raised inside into a `UserError` that asks for another file than `name`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{name} cannot be written ({error.strerror or error}): name another file.") from error


def check_writable(name: str) -> None:
    """Raise `UserError` unless the file `name` can be created or overwritten; a file created to try it is removed."""
    require(name != "", "The name of a file to write is empty: give one.")
    file = Path(os.path.realpath(name))  # writing follows links
    with writing(name):
        require(not file.is_dir(), f"{name} cannot be written: it is a folder, so name a file in it.")
        require(file.parent.is_dir(), f"{name} cannot be written: its folder is not there.")
        if file.is_file():
            file.open("ab").close()
        elif not file.exists():  # a pipe's reader would see it end
            trial = draft_of(file)
            remove(trial)
            trial.open("xb").close()
            remove(trial)


def write_output(name: str | Path, content: bytes) -> None:
    """Write a file that a person named, as a whole; raises UserError where it cannot be written."""
    file = Path(os.path.realpath(name))
    with writing(name):
        if file.exists() and not file.is_file():  # a pipe or a device
            file.write_bytes(content)
        else:
            write_atomically(file, content)


def check_page_name(name: str) -> None:
    """Raise `UserError` unless `name` can be written and ends with .html; called before any long computation."""
    require(name != "", "The name of the page is empty: give one that ends with .html, such as heads.html.")
    require(Path(name).suffix.lower() in (".html", ".htm"), f"{name} is no page: end its name with .html.")
    check_writable(name)


def step_name(step: int) -> str:
    """Name of the checkpoint or snapshot of a step: step-000500."""
    return f"step-{step:06d}"


def step_of(name: str) -> int:
    """The step in a name that `step_name` made."""
    return int(name.removeprefix("step-"))


def steps_in(names: Iterable[str], suffix: str = "", prefix: str = "step-") -> list[int]:
    """The steps of all names such as `prefix`000500`suffix`, in order; other names are left out."""
    matches = (re.fullmatch(f"{re.escape(prefix)}([0-9]{{6,12}}){re.escape(suffix)}", name) for name in names)
    return sorted(int(match[1]) for match in matches if match)


def sha256(content: bytes) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def checksum(file: Path, most: float = math.inf) -> str:
    """SHA-256 of a plain file, in hexadecimal; raises as `open_regular`."""
    with open_regular(file, most) as opened, reading(file):
        return hashlib.file_digest(opened, "sha256").hexdigest()


def json_bytes(content: dict[str, Any], indent: int | None = 2) -> bytes:
    """`content` as JSON, with a checksum of its values under "sha256"; indent: None writes a single line."""
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps({**content, "sha256": digest(content)}, indent=indent, separators=separators)
    return (text + "\n").encode()


def read_json(file: Path) -> dict[str, Any]:
    """The content that `json_bytes` wrote, without the checksum; raises UserError where it is missing or damaged."""
    content = parse_json(read_file(file, MAX_JSON), str(file))
    checksum_inside = content.pop("sha256", None) if isinstance(content, dict) else None
    require(checksum_inside is not None, f"{file} is damaged: it has no checksum.")
    require(checksum_inside == digest(content), f"{file} has changed since it was written.")
    return dict(content)


def digest(content: dict[str, Any]) -> str:
    """SHA-256 of plain data, in hexadecimal."""
    return sha256(json.dumps(content, sort_keys=True).encode())


def without_nan(value: Any) -> Any:
    """`value` with None in place of every NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(inside) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inside) for inside in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
