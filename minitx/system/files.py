"""Files that are whole, or known to be damaged: atomic writes, checksums, JSON that holds its own checksum."""

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from minitx.system.errors import UserError, require


def write_atomically(file: Path, content: bytes) -> None:
    """Replace `file` by `content` so that a reader sees either the old or the new, even after a power cut."""
    draft = draft_of(file)
    try:
        remove(draft)
        with with_filename(file), draft.open("xb") as opened:  # x: never through a link that someone put in its place
            opened.write(content)
        flush_to_disk(draft)
        draft.replace(file)
    except BaseException:
        remove(draft)
        raise


def draft_of(path: Path) -> Path:
    """Temporary name of a file or folder while this process writes it: .NAME-PID."""
    return path.with_name(f".{path.name}-{os.getpid()}")


def remove_drafts(folder: Path) -> None:
    """Remove the files and folders that killed processes left half-written in `folder`."""
    for path in folder.glob(".*"):
        if re.fullmatch(r"\..+-\d+", path.name):
            remove(path)


def remove(path: Path) -> None:
    """Remove a file or folder if it exists; of a link only the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def flush_to_disk(path: Path) -> None:
    """Wait until a file or folder is on disk; Windows cannot flush a folder."""
    if path.is_dir() and os.name == "nt":
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
def writing(name: str | Path) -> Iterator[None]:
    """Turn an `OSError` raised inside into a `UserError` that asks for another file than `name`."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{name} cannot be written ({error.strerror}): name another file.") from error


def check_writable(name: str) -> None:
    """Raise `UserError` unless the file `name` can be created or overwritten; a file created to try it is removed."""
    require(name != "", "The name of a file to write is empty: give one.")
    file = Path(os.path.realpath(name))  # writing follows links
    with writing(name):
        require(not file.is_dir(), f"{name} cannot be written: it is a folder, so name a file in it.")
        require(file.parent.is_dir(), f"{name} cannot be written: its folder is not there.")
        is_new = not file.exists()
        if is_new or file.is_file():  # not a pipe, whose reader would see it end
            file.open("ab").close()
        if is_new:
            remove(file)


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


def steps_in(names: Iterable[str], suffix: str = "") -> list[int]:
    """The steps of all names such as step-000500`suffix`, in order; other names are left out."""
    matches = (re.fullmatch(f"step-([0-9]{{6,12}}){re.escape(suffix)}", name) for name in names)
    return sorted(int(match[1]) for match in matches if match)


def sha256(content: bytes) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def checksum(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def json_bytes(content: dict[str, Any]) -> bytes:
    """`content` as JSON, with a checksum of its values under "sha256"."""
    return (json.dumps({**content, "sha256": digest(content)}, indent=2) + "\n").encode()


def read_json(file: Path) -> dict[str, Any]:
    """The content that `json_bytes` wrote, without the checksum; raises UserError where it is missing or damaged."""
    try:
        content = json.loads(file.read_text("utf-8"))
        whole = content.pop("sha256") == digest(content)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{file} is missing or damaged.") from error
    require(whole, f"{file} has changed since it was written.")
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
