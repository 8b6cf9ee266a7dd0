"""A small run that all tests of the library look into, trained once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import minitx
from tests.small import small_config


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the run runs/small of `small_config`."""
    folder = tmp_path_factory.mktemp("library")
    before = Path.cwd()
    os.chdir(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        minitx.train(small_config(Path()))
    os.chdir(before)
    yield folder


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch) -> minitx.LoadedRun:
    """The run, with its folder's parent as working directory."""
    monkeypatch.chdir(home)
    return minitx.load("runs/small")
