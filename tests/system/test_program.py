"""Suggested commands are in the form in which the program was called: not everybody has train.py."""

from __future__ import annotations

import sys

import pytest

from minitx.system.program import command


@pytest.mark.parametrize(
    ("called", "train", "heads"),
    [
        ("train.py", "python train.py", "minitx heads"),
        ("/a/minitx/generate.py", "python train.py", "minitx heads"),
        ("/a/site-packages/minitx/__main__.py", "python -m minitx train", "python -m minitx heads"),
        ("/usr/local/bin/minitx", "minitx train", "minitx heads"),
        ("/a/pytest/__main__.py", "minitx train", "minitx heads"),
        ("", "minitx train", "minitx heads"),
    ],
)
def test_a_command_is_as_the_program_was_called(
    called: str, train: str, heads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    assert (command("train"), command("heads")) == (train, heads)
