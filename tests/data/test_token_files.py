"""Token files: tokens written piece by piece form one .npy array."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from minitx.data.token_files import Tokens, TokenWriter


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65536, "<u2"), (65537, "<u4")])
def test_token_files(vocab_size: int, dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "tokens.npy"
    pieces: list[Tokens] = [np.array([1, 2, 65535], np.int32), np.array([vocab_size - 1], np.int32), np.arange(30_000)]
    with closing(TokenWriter(path, vocab_size)) as writer:
        for piece in pieces:
            writer.write(piece)
    tokens = np.load(path, allow_pickle=False)
    assert tokens.dtype == np.dtype(dtype)
    assert tokens.tolist() == np.concatenate(pieces).tolist()
    itemsize = tokens.dtype.itemsize
    assert path.stat().st_size == 128 + itemsize * len(tokens), "the header of the final count takes other room"
