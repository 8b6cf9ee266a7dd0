"""Files that are whole or known not to be."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from minitx.config import UserError
from minitx.files import json_bytes, read_json, remove, write_atomically


def test_json_knows_when_what_it_says_has_changed(tmp_path: Path) -> None:
    content = {"step": 12, "loss": 0.1 + 0.2, "best": float("inf"), "name": "é", "rows": [1, None, {"a": True}]}
    file = tmp_path / "a.json"
    written = json_bytes(content)
    file.write_bytes(written)
    assert read_json(file) == content
    for bit in range(8 * len(written)):
        damaged = bytearray(written)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        try:
            assert read_json(file) == content  # as with \\u00E9 for \\u00e9
        except UserError as error:
            assert "a.json" in str(error)
    for length in range(len(written) - 1):
        file.write_bytes(written[:length])
        with pytest.raises(UserError, match=r"a\.json"):
            read_json(file)


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, '{"sha256": []}', "[]", '{"a": 1}', "null"])
def test_json_of_a_stranger_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UserError, match=r"a\.json"):
        read_json(tmp_path / "a.json")


def test_a_write_never_goes_through_a_link_that_lies_in_wait(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / f".a.json-{os.getpid()}").symlink_to(victim)
    (tmp_path / "a.json").symlink_to(victim)
    write_atomically(tmp_path / "a.json", json.dumps({}).encode())
    assert victim.read_text() == "precious" and (tmp_path / "a.json").read_text() == "{}"


def test_of_a_link_only_the_link_is_removed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    remove(tmp_path / "link")
    assert not (tmp_path / "link").exists() and (tmp_path / "there" / "file").exists()
    remove(tmp_path / "there")
    remove(tmp_path / "there")
    assert not (tmp_path / "there").exists()
