"""Files that are whole or known not to be: written beside and renamed, with checksums, JSON that knows its own."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minitx.system.errors import UserError, require
from minitx.system.faults import with_filename


def write_atomically(file: Path, content: bytes) -> None:
    """Replace `file` by `content` so that a reader sees either the old or the new, also after a power cut."""
    draft = file.with_name(f".{file.name}-{os.getpid()}")
    try:
        remove(draft)
        with with_filename(file), draft.open("xb") as opened:  # x: never through a link that lies in wait
            opened.write(content)
        flush_to_disk(draft)
        draft.replace(file)
    except BaseException:
        remove(draft)
        raise


@contextlib.contextmanager
def writing(name: str | Path) -> Iterator[None]:
    """Turn an `OSError` raised inside into a `UserError` that asks for another file than `name`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{name} cannot be written ({error.strerror}): name another file.") from error


def check_writable(name: str) -> None:
    """Raise `UserError` unless the file `name` can be made or written over; nothing is left of the trial."""
    require(name != "", "The name of a file to write is empty: give one.")
    file = Path(os.path.realpath(name))  # what a link leads to is what is written
    with writing(name):
        require(not file.is_dir(), f"{name} cannot be written: it is a folder, so name a file in it.")
        require(file.parent.is_dir(), f"{name} cannot be written: its folder is not there.")
        is_new = not file.exists()
        if is_new or file.is_file():  # not a pipe, whose reader would see it end
            file.open("ab").close()
        if is_new:
            remove(file)


def check_page_name(name: str) -> None:
    """Raise `UserError` unless `name` can be the file of an HTML page; said before anything that takes long."""
    require(name != "", "The name of the page is empty: give one that ends with .html, such as heads.html.")
    require(Path(name).suffix.lower() in (".html", ".htm"), f"{name} is no page: end its name with .html.")
    check_writable(name)


def remove(path: Path) -> None:
    """Remove a file or folder if it is there; of a link only the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def flush_to_disk(path: Path) -> None:
    """Wait until a file or folder is on disk; folders cannot be flushed on Windows."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def checksum(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def json_bytes(content: dict[str, Any]) -> bytes:
    """`content` as JSON, with a checksum of what it says under "sha256"."""
    return (json.dumps({**content, "sha256": digest(content)}, indent=2) + "\n").encode()


def read_json(file: Path) -> dict[str, Any]:
    """What `json_bytes` wrote, without the checksum; raises UserError when it is missing or damaged."""
    try:
        content = json.loads(file.read_text("utf-8"))
        whole = content.pop("sha256") == digest(content)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{file} is missing or damaged.") from error
    require(whole, f"{file} has changed since it was written.")
    return dict(content)


def digest(content: dict[str, Any]) -> str:
    """SHA-256 of plain data, in hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class Watched(io.BufferedWriter):
    """A file that remembers why writing to it failed, which torch.save does not say."""

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        """Write as a file does."""
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            raise


def without_nan(value: Any) -> Any:
    """`value` with None in place of every NaN and infinity, which JSON does not know."""
    if isinstance(value, dict):
        return {key: without_nan(inside) for key, inside in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inside) for inside in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
