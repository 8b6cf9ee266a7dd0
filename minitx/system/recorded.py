"""What is recorded of a file when it is written, so that a change of it is noticed later."""

from pathlib import Path
from typing import NamedTuple

from minitx.system.fields import LARGEST, Fields
from minitx.system.files import checksum


class Recorded(NamedTuple):
    """Size and checksum; `bytes` is `LARGEST` where an older version of minitx recorded no size."""

    bytes: int
    sha256: str


def record(file: Path) -> Recorded:
    """Size and checksum of a file now."""
    return Recorded(file.stat().st_size, checksum(file))


def read_record(fields: Fields, name: str) -> Recorded:
    """A field written as `record(…)._asdict()`, or by older versions as the checksum alone."""
    if isinstance(fields.content.get(name), str):
        return Recorded(LARGEST, fields.text(name, "[0-9a-f]{64}", "a checksum"))
    inside = fields.inside(name, dict)
    return Recorded(inside.whole("bytes"), inside.text("sha256", "[0-9a-f]{64}", "a checksum"))


def is_unchanged(file: Path, before: Recorded) -> bool:
    """Whether a file is as it was; a larger one is not read. Raises UserError where it cannot be read."""
    return checksum(file, before.bytes) == before.sha256
