"""Token files: one array in numpy's .npy format, written piece by piece and mapped into memory to be read."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from minitx.system.errors import require

Tokens = np.ndarray[Any, np.dtype[Any]]


class TokenWriter:
    """Writes a token file of unknown length; a token takes 2 bytes if the vocabulary allows, else 4."""

    def __init__(self, path: Path, vocab_size: int) -> None:
        self._dtype = np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")
        self._count = 0
        self._file = path.open("wb")
        self._write_header()

    def write(self, tokens: Tokens) -> None:
        """Append `tokens`."""
        self._file.write(tokens.astype(self._dtype).tobytes())
        self._count += len(tokens)

    def close(self) -> None:
        """Finish the file and flush it to disk."""
        with self._file:
            self._file.seek(0)
            self._write_header()
            self._file.flush()
            os.fsync(self._file.fileno())

    def _write_header(self) -> None:
        """Write the header for `_count` tokens. numpy pads it, so that every count takes the same room."""
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (self._count,)}
        np.lib.format.write_array_header_1_0(self._file, header)


def require_window(tokens: Tokens, context_length: int) -> None:
    """Raise `UserError` unless the training text holds a window and the token after it."""
    require(
        len(tokens) > context_length,
        f"The training text has {len(tokens)} tokens, but model.context_length {context_length} needs at least "
        f"{context_length + 1}: use more text or a shorter context.",
    )
