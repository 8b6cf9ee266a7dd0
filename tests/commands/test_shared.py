"""Code that several verbs share, in the cases that the verbs' tests leave out."""

from __future__ import annotations

from pathlib import Path

import pytest

from minitx.commands.shared import as_text, exclude, parse_list, read_text
from minitx.system.errors import UserError


def test_options_exclude_each_other_only_if_both_are_given() -> None:
    options = {"heads": "1", "kinds": None, "json": False, "page": "", "curve": True}
    exclude(options, "heads", "kinds", "json")
    exclude(options, "kinds", "heads", "curve")
    with pytest.raises(UserError, match="Both --heads and --page, --curve are given: leave one out."):
        exclude(options, "heads", "json", "page", "curve")


def test_a_list_has_good_parts_and_none_twice() -> None:
    assert parse_list(" 1, 20", "[0-9]+", "wrong") == ["1", "20"]
    for text in ("1,1", "1,a", "1,", ""):
        with pytest.raises(UserError, match="wrong"):
            parse_list(text, "[0-9]+", "wrong")


def test_a_text_is_the_content_of_a_file_in_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeff é\r\n".encode())
    assert read_text("--text_file", str(file)) == "\ufeff é\r\n"
    file.write_bytes(b"ab\xff")
    with pytest.raises(UserError, match=r"--text_file .*a.txt is not UTF-8 .*0xff in position 2"):
        read_text("--text_file", str(file))
    with pytest.raises(UserError, match=r"The prompt is not UTF-8 .*'\\ud800' in position 1"):
        as_text("a\ud800", "The prompt")
