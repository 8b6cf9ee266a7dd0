"""Every character of a source arrives, in order. A broken source gives one sentence."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pyarrow  # type: ignore[import-untyped]  # it ships no types
import pyarrow.parquet  # type: ignore[import-untyped]
import pytest

from minitx.config import DataConfig
from minitx.data import sources
from minitx.data.builtin import repeated_letters
from minitx.data.sources import identity, is_path, read
from minitx.system.errors import UserError

ROOT = Path(__file__).parents[2]
TEXTS = ["a\r\nb\n\n  c  \n", " lead\ttrail ", "NA", "007", "2020-01-01", "x\u2028y\x0cz\x85", "\"q\", 's'", "\n", "\r"]
TEXTS += ["null", "a\0b", "\ufeffé日本😀", "long " * 30000]


def texts(config: DataConfig, split: str = "train") -> list[str]:
    """The documents of a source as whole strings."""
    joined = [""]
    for text, last, _ in read(config, split, seed=1):
        joined[-1] += text
        joined += [""] * last
    assert joined.pop() == ""
    return joined


def write(path: Path, rows: list[str], column: str = "text") -> Path:
    """A file of `rows`, of the kind that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[1]
    file = io.StringIO(newline="")
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.table({"id": list(range(len(rows))), column: rows}), path)
        return path
    if kind == "csv":
        csv.writer(file).writerows([["id", column], *enumerate(rows)])
    elif kind == "jsonl":
        file.write("".join(json.dumps({"id": i, column: row}) + "\n" for i, row in enumerate(rows)))
    else:
        file.write("".join(rows))
    content = file.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "a.jsonl.gz", "a.csv.gz", ".hid/__x/[b] a*.csv"])
def test_rows_come_through_unchanged(tmp_path: Path, name: str) -> None:
    if os.name == "nt" and "*" in name:
        pytest.skip("Windows has no such file names")
    config = DataConfig(str(write(tmp_path / name, TEXTS)))
    assert texts(config) == TEXTS


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "A.TXT"])
def test_text_file_is_one_document(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line end is \\n: of Windows files, \\r was a token at the end of every line."""
    monkeypatch.setattr(sources, "BLOCK", 2)  # cuts characters in two, and \\r\\n
    whole = "".join(TEXTS).replace("\r\n", "\n").replace("\r", "\n")
    assert texts(DataConfig(str(write(tmp_path / name, TEXTS)))) == [whole]


def test_folders_globs_and_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "b" / "2.txt", ["two"])
    write(tmp_path / "a.jsonl", ["one", "", "more"])
    write(tmp_path / "b" / "1.csv", ["three"])
    write(tmp_path / "b" / "empty.txt", [])
    write(tmp_path / "b" / "empty.jsonl", [])
    (tmp_path / "b" / "other.zip").write_bytes(b"PK")
    write(tmp_path / "b" / ".venv" / "hidden.txt", ["hidden"])
    assert texts(DataConfig(str(tmp_path))) == ["one", "more", "three", "two"]
    assert texts(DataConfig(str(tmp_path / "*" / "*.txt"))) == ["two"]
    assert texts(DataConfig(str(tmp_path / "**" / "*.*"))) == ["one", "more", "three", "two"]
    assert texts(DataConfig(str(tmp_path), max_documents=2)) == ["one", "more"]
    monkeypatch.chdir(tmp_path)
    assert texts(DataConfig("b")) == ["three", "two"]
    before = identity(DataConfig("b"))
    assert identity(DataConfig("b")) == before
    write(tmp_path / "b" / "2.txt", ["twofold"])
    assert identity(DataConfig("b")) != before


def test_what_is_a_path() -> None:
    assert all(map(is_path, ("./a", "../a/b", "/a", "~/a", "a.txt", "a/b.csv.gz", "a*", "a/**", str(ROOT), "C:\\a")))
    assert not any(map(is_path, ("roneneldan/TinyStories", "wikitext", "a/b.c")))


def test_what_is_wrong_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_bytes(b"x" * 9 + "é".encode() + b"\xff")
    (tmp_path / "cut.txt").write_bytes(b"x" * 9 + b"\xc3")
    (tmp_path / "bad.csv").write_bytes(b"id,text\n1,\xff\n")
    (tmp_path / "bad.jsonl").write_bytes(b'{"text": "\xff"}\n')
    (tmp_path / "broken.jsonl").write_bytes(b'{"text": "a"}\n\n{"text": \n')
    (tmp_path / "broken.parquet").write_bytes(b"hello")
    (tmp_path / "broken.txt.gz").write_bytes(b"hello")
    (tmp_path / "number.jsonl").write_bytes(b'{"text": 1}\n')
    (tmp_path / "file.pdf").write_bytes(b"%PDF")
    (tmp_path / "hollow").mkdir()
    for kind in ("jsonl", "csv", "parquet"):
        write(tmp_path / f"named.{kind}", ["a"], column="texts")
    wrong = {
        "bad.txt": "not valid UTF-8 at byte 11",
        "cut.txt": "not valid UTF-8 at byte 9",
        "bad.csv": "not valid UTF-8 at byte 10",
        "bad.jsonl": "not valid UTF-8 at byte 10",
        "broken.jsonl": r"no JSON object in line 3 \(JSON parse error: [^.]*\): mend or remove that line",
        "broken.parquet": "cannot be read",
        "broken.txt.gz": "cannot be read",
        "number.jsonl": "holds int, not text",
        "file.pdf": r"use \.txt, \.jsonl, \.csv, \.parquet",
        "hollow": "holds no file",
        "*.zip": "matches no file",
        "*.pdf": "holds no file",
        "none.txt": "does not exist",
        "named.jsonl": r"has the columns id, texts.*did you mean texts\?",
        "named.csv": "has the columns id, texts",
        "named.parquet": "has the columns id, texts",
    }
    for name, message in wrong.items():
        with pytest.raises(UserError, match=message) as error:
            texts(DataConfig(str(tmp_path / name)))
        assert name in str(error.value)
        assert "\n" not in str(error.value)


def test_bytes_that_are_not_utf8_can_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"ab\xffcd\xc3")
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "ab\xffcd"}\n')
    whole = write(tmp_path / "whole.csv", TEXTS, column="té")
    assert texts(DataConfig(str(whole), text_column="té", encoding_errors="replace")) == TEXTS
    for name, expected in (("a.txt", "ab\ufffdcd\ufffd"), ("b.jsonl", "ab\ufffdcd")):
        assert texts(DataConfig(str(tmp_path / name), encoding_errors="replace")) == [expected]
        with pytest.raises(UserError, match=r"not valid UTF-8 at byte \d+.*encoding_errors to replace"):
            texts(DataConfig(str(tmp_path / name)))


@pytest.mark.parametrize("name", ["a.csv", "A.CSV.gz"])
@pytest.mark.parametrize("errors", ["strict", "replace"])
def test_a_csv_file_must_be_utf8(tmp_path: Path, name: str, errors: Any) -> None:
    content = b"text\nab\xffcd\n"
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(UserError, match=r"byte 7: convert it to UTF-8, for data.encoding_errors replace does not work"):
        texts(DataConfig(str(tmp_path / name), encoding_errors=errors))


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.gz"])
def test_a_bomb_is_refused(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MIN_SUSPICIOUS", 1 << 20)
    (tmp_path / name).write_bytes(gzip.compress(b"a" * (4 << 20)))
    with pytest.raises(UserError, match=r"unpacks to more than 200 times its size"):
        texts(DataConfig(str(tmp_path / name)))
    (tmp_path / name).write_bytes(gzip.compress(b'{"text": "a"}\n' * 1000))  # much alike, but small
    assert sum(map(len, texts(DataConfig(str(tmp_path / name))))) >= 1000


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv"])
def test_a_line_of_ten_megabytes(tmp_path: Path, name: str) -> None:
    line = "word " * (2 << 20)
    assert texts(DataConfig(str(write(tmp_path / name, [line])))) == [line]


def test_repeats_come_twice_in_no_order() -> None:
    documents = list(repeated_letters())
    assert documents == list(repeated_letters()) and len(documents) > 10_000
    halves = [document[: len(document) // 2] for document in documents]
    assert all(
        document == half * 2 and len({*half}) == len(half) for document, half in zip(documents, halves, strict=True)
    )
    assert {len(half) for half in halves} == set(range(8, 17))
    assert len({*halves}) > 0.99 * len(halves)
    pieces = list(read(DataConfig(source="repeats", max_documents=3), "train", seed=1))
    assert [piece.text for piece in pieces] == documents[:3] and all(piece.last for piece in pieces)
    assert identity(DataConfig(source="repeats")) == identity(DataConfig(source="repeats")) != {}
