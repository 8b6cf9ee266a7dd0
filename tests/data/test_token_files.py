"""Token files: what is written comes back mapped, and damage is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minitx.data.token_files import TokenWriter, read_tokens
from minitx.system.errors import UserError


def test_token_files(tmp_path: Path) -> None:
    path = tmp_path / "tokens.bin"
    for vocab_size, dtype in ((65536, "<u2"), (65537, "<u4")):
        writer = TokenWriter(path, vocab_size)
        writer.write(np.array([1, 2, 65535], np.int32))
        writer.write(np.array([vocab_size - 1], np.int32))
        writer.close()
        tokens = read_tokens(path)
        assert tokens.dtype == np.dtype(dtype)
        assert tokens.tolist() == [1, 2, 65535, vocab_size - 1]
        del tokens  # Windows writes no file that is mapped
    good = path.read_bytes()
    damage = {b"": "not a token file", b"GIF89a" + good[6:]: "not a token file", good[:-1]: "its 4 tokens need"}
    damage |= {good + b"\0\0": "its 4 tokens need", good[:8] + b"\x09" + good[9:]: "version 9"}
    for content, message in damage.items():
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"tokens.bin.*{message}"):
            read_tokens(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_tokens(tmp_path / "none")
