"""python-docs is prose and nothing else, the same each time, on whatever Python it runs."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from minitx.config import DataConfig
from minitx.data import builtin, sources
from minitx.data.builtin import python_docs, written
from minitx.data.prose import RUN
from minitx.system.errors import UserError

ELSEWHERE = """
import builtins, hashlib, sys
def mine():
    "This is one sentence of a program that has nothing to do with Python."
builtins.mine = sys.excepthook = mine
from minitx.config import DataConfig
from minitx.data.sources import read
print(hashlib.sha256("\\0".join(piece.text for piece in read(DataConfig(), "train", 1)).encode()).hexdigest())
"""


@pytest.fixture(scope="module")
def documents() -> list[str]:
    return [piece.text for piece in sources.read(DataConfig(), "train", 1)]


def test_its_size_is_sensible(documents: list[str]) -> None:
    assert 1_500_000 < sum(map(len, documents)) < 5_000_000
    assert 500 < len(documents) == len(set(documents)) < 1_500
    assert max(map(len, documents)) < 0.1 * sum(map(len, documents)), "one document would fill the validation split"


def test_it_is_whole_sentences_without_boilerplate(documents: list[str]) -> None:
    for paragraph in "\n\n".join(documents).split("\n\n"):
        assert re.match(r"[\"'(]{0,2}[A-Z]", paragraph) and re.search(r"[.!?][\"')]*$", paragraph), paragraph
        assert not re.search(r"\n|  |>>>|:param|:class:|``| -> |={3}|https?:", paragraph), paragraph
        assert not re.search(r"copyright|all rights|licen[sc]e", paragraph, re.IGNORECASE), paragraph
        signature = re.search(r"\w\((?:self|\w+=)[^)]*\):", paragraph)  # a definition's, not a call's
        assert not signature, paragraph


def test_no_run_of_words_comes_twice(documents: list[str]) -> None:
    """Found by a plain list of all runs, paragraph by paragraph."""
    runs: list[tuple[str, ...]] = []
    for paragraph in "\n\n".join(documents).split("\n\n"):
        words = re.findall("[a-z]+", paragraph.lower())
        assert len(words) >= RUN, paragraph
        runs += {tuple(words[start : start + RUN]) for start in range(len(words) - RUN + 1)}
    assert len(runs) == len(set(runs))


def test_another_process_reads_the_same(documents: list[str]) -> None:
    """Sets of strings have another order there, other modules are loaded, and builtins hold a function more."""
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == hashlib.sha256("\0".join(documents).encode()).hexdigest()


def test_missing_parts_of_python_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)  # some systems leave it out of Python
    monkeypatch.setitem(sys.modules, "_ssl", None)
    text = "Sentences of more than eight words are all that is left of a whole file. "
    (tmp_path / "a.py").write_bytes(
        f'"""{text * 3}\n\nCaf\xe9 is not UTF-8 here, so its letter is replaced by a sign."""'.encode("latin-1")
    )
    (tmp_path / "folder.py").mkdir()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    documents = list(python_docs(set()))
    assert sum(map(len, documents)) > 20_000, "the modules written in C have docstrings without any file"
    (tmp_path / "a.py").unlink()
    (tmp_path / "folder.py").rmdir()
    with pytest.raises(UserError, match="finds no modules in .*: name a file"):
        list(python_docs(set()))


def test_what_validates_is_pythons_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With other packages, or none, the same text validates."""
    (tmp_path / "a.py").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setattr(builtin, "PACKAGES", ("tqdm", "no_such_package"))
    pieces = [*sources.read(DataConfig(), "train", 1)]
    own = [piece for piece in pieces if not piece.only_trains]
    assert len(own) < len(pieces) and pieces[: len(own)] == own
    assert sources.identity(DataConfig())["packages"].keys() == {"tqdm"}
    monkeypatch.setattr(builtin, "PACKAGES", ())
    assert [*sources.read(DataConfig(), "train", 1)] == own


def test_docstrings_and_comments_are_read_in_order(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        '"""Module.\n\n    Indented.\n    """\n# One line.\nclass A:\n    # Two\n    # lines.\n'
        "    def f(self):\n        r'''Method # no comment.'''\n        return 'no \"text\"'\n"
    )
    assert written(path) == ["Module.\n\nIndented.", "Two\nlines.\n", "Method # no comment."]


def test_another_choice_of_text_has_another_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sources.identity(DataConfig())
    assert before["rules"] == builtin.RULES
    monkeypatch.setattr(sources, "RULES", "others")
    assert sources.identity(DataConfig()) != before
