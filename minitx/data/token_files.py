"""Token files: a header (magic, version, bytes per token, count), then the tokens, written in a stream and mapped."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import IO, Any

import numpy as np

from minitx.system.errors import UserError, require

Tokens = np.ndarray[Any, np.dtype[Any]]

VERSION = 1
HEADER = struct.Struct("<8sII Q")  # magic, version, bytes per token, number of tokens; all little-endian
MAGIC = b"minitx\0T"


class TokenWriter:
    """Writes a token file piece by piece; `close` puts the number of tokens into its header."""

    def __init__(self, path: Path, vocab_size: int) -> None:
        self.count = 0
        self._dtype = np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")
        self._file = path.open("wb")
        self._file.write(HEADER.pack(MAGIC, VERSION, self._dtype.itemsize, 0))

    def write(self, tokens: Tokens) -> None:
        """Append `tokens`."""
        self._file.write(tokens.astype(self._dtype).tobytes())
        self.count += len(tokens)

    def close(self) -> None:
        """Finish the file, through to the disk."""
        self._file.seek(0)
        self._file.write(HEADER.pack(MAGIC, VERSION, self._dtype.itemsize, self.count))
        sync(self._file)
        self._file.close()


def read_tokens(path: str | Path) -> Tokens:
    """Map a token file into memory. Raises `UserError` where it is missing, damaged or of another version."""
    try:
        with Path(path).open("rb") as file:
            header = file.read(HEADER.size)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise UserError(f"Token file {path} cannot be read ({error.strerror}): prepare the data again.") from error
    fields = HEADER.unpack(header) if len(header) == HEADER.size else (b"", 0, 0, 0)
    magic, version, width, count = fields
    require(magic == MAGIC, f"{path} is not a token file of minitx: prepare the data again.")
    require(
        version == VERSION and width in (2, 4),
        f"Token file {path} has version {version} and {width} bytes per token, but version {VERSION} and 2 or 4 bytes "
        "were expected: prepare the data again.",
    )
    require(
        size == HEADER.size + width * count,
        f"Token file {path} holds {size} bytes, but its {count} tokens need {HEADER.size + width * count}: prepare "
        "the data again.",
    )
    return np.memmap(path, dtype=f"<u{width}", mode="r", offset=HEADER.size, shape=(count,))


def sync(file: IO[Any]) -> None:
    """Write `file` through to the disk."""
    file.flush()
    os.fsync(file.fileno())
