"""Files are written whole, or a reader notices the damage."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from minitx.system.errors import UserError
from minitx.system.files import (
    check_page_name,
    check_writable,
    draft_of,
    json_bytes,
    read_json,
    remove,
    remove_drafts,
    step_name,
    step_of,
    steps_in,
    write_atomically,
)


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


def test_a_file_that_can_be_written_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for name in ("old", "new", "link"):
        check_writable(str(tmp_path / name))
    assert (tmp_path / "old").read_text() == "precious" and (tmp_path / "link").is_symlink()
    assert {entry.name for entry in tmp_path.iterdir()} == {"old", "link"}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (".", r"\. cannot be written: it is a folder"),
        ("nowhere/a", "nowhere/a cannot be written: its folder is not there"),
        ("a" * 300, "name another file"),
        ("", "name of a file to write is empty"),
    ],
)
def test_what_cannot_be_written_is_said(
    name: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=sentence):
        check_writable(name)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("", "name of the page is empty"), ("README.md", "README.md is no page"), ("a.html", "it is a folder")],
)
def test_a_page_has_a_name_of_its_own(
    name: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.html").mkdir()
    with pytest.raises(UserError, match=sentence):
        check_page_name(name)


def test_of_a_link_only_the_link_is_removed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    remove(tmp_path / "link")
    assert not (tmp_path / "link").exists() and (tmp_path / "there" / "file").exists()
    remove(tmp_path / "there")
    remove(tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_drafts_go_and_everything_else_stays(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("")
    draft_of(tmp_path / "a.json").write_text("half")
    draft_of(tmp_path / "folder").mkdir()
    (tmp_path / ".lock").write_text("")
    (tmp_path / ".config-x").write_text("")
    remove_drafts(tmp_path)
    remove_drafts(tmp_path / "nowhere")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", ".lock", ".config-x"}


@pytest.mark.parametrize("step", [0, 500, 999_999, 1_000_000])
def test_a_name_has_its_step(step: int) -> None:
    assert step_of(step_name(step)) == step and steps_in([step_name(step)]) == [step]


def test_steps_are_in_order_and_other_names_are_left_out() -> None:
    """By name, step-1000000 would come before step-999999."""
    names = ["step-1000000", "step-999999", "step-x", "step-00001", ".step-000001-9", "step-٠٠٠٠٠١", "last"]
    assert steps_in(names) == [999_999, 1_000_000]
    assert steps_in(["step-000002.heads", "step-000003"], ".heads") == [2]
