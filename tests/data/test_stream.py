"""Streams: readers share the data out without overlap or loss, and every number of processes reads the same."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minitx.config import DataConfig, TokenizerConfig
from minitx.data import hub
from minitx.data.batches import Dropout, Share
from minitx.data.prepare import Prepared, prepare
from minitx.data.sources import row_stream
from minitx.data.stream import Place, Reader, Stream, check_stream, merged, read_place
from minitx.data.token_files import Tokens
from minitx.system.errors import UserError
from minitx.system.fields import Fields
from tests.data.test_sources import write

LENGTH, ROWS = 7, 12


def shards(folder: Path, sizes: list[int], kind: str = "jsonl") -> DataConfig:
    """Files of so many documents each, all different."""
    first = np.cumsum([0, *sizes]).tolist()
    for number, size in enumerate(sizes):
        write(folder / f"{number}.{kind}", [str(first[number] + i) for i in range(size)])
    return DataConfig(str(folder), streaming="train", readers=3, buffer=4, max_documents=10, val_fraction=0.3)


def readers(data: DataConfig, seed: int = 1) -> list[Reader]:
    """Readers for which a document, which is a number, has two tokens: `window(2)` then begins with the number."""

    def encode(text: str) -> Tokens:
        return np.array([int(text), -1])

    opened = functools.cache(lambda: row_stream(data))
    return [Reader(data, opened, number, seed, encode) for number in range(data.readers)]


def documents(reader: Reader, epochs: int) -> list[list[int]]:
    """The documents that a reader reads in each epoch, in order."""
    read: list[list[int]] = [[] for _ in range(epochs)]
    while (epoch := reader.place.epoch) < epochs:
        read[epoch].append(int(reader.window(2)[0]))
    return read


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize("sizes", [[5, 1, 9, 3, 12], [30, 2]], ids=["more shards than readers", "fewer"])
def test_an_epoch_has_every_document_once(tmp_path: Path, kind: str, sizes: list[int]) -> None:
    by_reader = [documents(reader, epochs=3) for reader in readers(shards(tmp_path, sizes, kind))]
    epochs = [list(chain(*parts)) for parts in zip(*by_reader, strict=True)]
    assert all(sorted(epoch) == list(range(sum(sizes))) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 3, "in another order each time"
    other = [documents(reader, epochs=1)[0] for reader in readers(shards(tmp_path, sizes, kind), seed=2)]
    assert list(chain(*other)) != epochs[0]


@pytest.mark.parametrize("sizes", [[5, 1, 9, 3, 12], [30, 2]], ids=["more shards than readers", "fewer"])
def test_a_reader_goes_on_from_every_place(tmp_path: Path, sizes: list[int]) -> None:
    """Guards against the library's shuffle buffer, which is empty after `load_state_dict`."""
    data = shards(tmp_path, sizes)
    for reader, other in zip(readers(data), readers(data), strict=True):
        places, windows = [], []
        for _ in range(40):
            places.append(json.dumps(vars(reader.place)))
            windows.append(reader.window(3).tolist())  # windows begin within documents too
        assert reader.place.epoch >= 1
        for start in range(0, 40, 3):
            other.restore(Place(**json.loads(places[start])))
            assert [other.window(3).tolist() for _ in windows[start : start + 5]] == windows[start : start + 5]


def test_a_broken_connection_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block under way is read again, from the library's state before it."""
    data = shards(tmp_path, [5, 1, 9, 3, 12])
    expected = [documents(reader, epochs=2) for reader in readers(data)]
    monkeypatch.setattr(hub, "WAITS", (0,))
    opened, faults = Reader._open, [0]

    def breaking(reader: Reader, epoch: int, library: Any) -> tuple[Any, Iterator[dict[str, Any]]]:
        stream, rows = opened(reader, epoch, library)

        def some() -> Iterator[dict[str, Any]]:
            for number, row in enumerate(rows):
                yield row
                if number == 5 and library is None:
                    faults[0] += 1
                    raise ConnectionResetError("gone")

        return stream, some()

    monkeypatch.setattr(Reader, "_open", breaking)
    assert [documents(reader, epochs=2) for reader in readers(data)] == expected and faults[0] >= 4


def test_a_reader_without_documents_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"reader 3 of 3 finds no document of its own to train on: lower data\.readers"):
        readers(shards(tmp_path, [2]))[2].window(2)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("1.jsonl", b'{"text": "7"}\n{"text": "half\n', r"no JSON object in line 2 \(.*\): mend or remove that line\."),
        ("1.jsonl", b'{"text": "7"}\n{"text": "\xff"}\n', "is not valid UTF-8 at byte 24: save it as UTF-8"),
        ("1.jsonl.gz", b"no archive", r"cannot be read \(Not a gzipped file .*\): check the file\."),
    ],
)
def test_a_row_that_cannot_be_read_is_found(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    data = dataclasses.replace(shards(tmp_path, [4]), readers=1)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"^{tmp_path / name} .*{sentence}") as error:
        documents(readers(data)[0], epochs=1)
    assert "data.name" not in str(error.value)


def test_files_whose_rows_differ_are_to_be_prepared(tmp_path: Path) -> None:
    data = dataclasses.replace(shards(tmp_path, [4]), readers=1)
    write(tmp_path / "1.jsonl", ["7"], column="words")
    with pytest.raises(UserError, match="all rows the same columns, or leave data.streaming out to prepare"):
        documents(readers(data)[0], epochs=1)


def prepared(data: DataConfig) -> Prepared:
    return prepare(data, TokenizerConfig("char"), 1, progress=False)


def streams(data: DataConfig, processes: int) -> list[Stream]:
    """What each of `processes` reads: its rows in two parts."""
    begun, dropout = prepared(data), Dropout(0.5, (1, 2, LENGTH, 1))
    shares = [Share(ROWS, 2, process, processes) for process in range(processes)]
    return [Stream(data, begun, LENGTH, ROWS, 5, None, share, dropout) for share in shares]


def update(streams: list[Stream]) -> list[list[Any]]:
    """Inputs, targets and dropout of each row of the next update, in order."""
    by_process = [[torch.cat(parts) for parts in zip(s.next(), s.next(), strict=True)] for s in streams]
    size = len(streams)
    return [[part[row // size].tolist() for part in by_process[row % size]] for row in range(ROWS)]


def test_every_number_of_processes_reads_the_same_and_goes_on_exactly(tmp_path: Path) -> None:
    """Across epochs, of which shards of unequal sizes have different numbers."""
    data = dataclasses.replace(shards(tmp_path / "data", [5, 1, 9, 3, 40, 2, 7]), readers=6)
    alone, updates, states = streams(data, 1), [], []
    for _ in range(9):
        states.append(alone[0].state())
        assert alone[0].rows().shape == (ROWS, LENGTH)
        alone[0].restore(states[-1])
        updates.append(update(alone))
    epochs = {place["epoch"] for place in alone[0].state()["readers"]}
    assert len(epochs) > 1 and alone[0].epochs == max(epochs)
    for before, after in ((2, 3), (3, 2), (3, 1)):
        ours = streams(data, before)
        assert [update(ours) for _ in range(5)] == updates[:5]
        state = merged([stream.state() for stream in ours])
        assert state == states[5]
        kept = read_place(Fields(json.loads(json.dumps(state)), "state.json"))
        theirs = streams(data, after)
        for stream in theirs:
            stream.restore(kept)
        assert [update(theirs) for _ in range(4)] == updates[5:]
    write(tmp_path / "data" / "9.jsonl", ["one more"])
    with pytest.raises(UserError, match="the data set has changed"):
        streams(data, 1)[0].restore(states[0])
    assert merged([{"epoch": 1, "position": 2}] * 2) == {"epoch": 1, "position": 2}


def test_what_validates_never_trains(tmp_path: Path) -> None:
    """Wherever it comes again; and whatever else there is trains."""
    data = shards(tmp_path, [20, 20])
    write(tmp_path / "8.jsonl", [str(i) for i in range(40)])
    begun = prepared(data)
    validates = set(begun.tokenizer.decode(begun.val[begun.val != begun.tokenizer.end_of_document].tolist()))
    assert begun.val_documents == 3 and begun.train_documents == 7 and len(validates) == 3
    stream = Stream(dataclasses.replace(data, readers=1), begun, 1, 1, 5)
    text = []
    while stream.state()["readers"][0]["epoch"] == 0:
        text.append(int(stream.next()[0]))
    ends = [i for i, token in enumerate(text) if token == begun.tokenizer.end_of_document]
    words = [begun.tokenizer.decode(text[a:b]) for a, b in zip([0, *ends], ends, strict=False)]
    expected = Counter({str(i): 2 for i in range(40) if str(i) not in validates})
    assert Counter(words) == expected


@pytest.mark.parametrize(
    ("count", "processes", "remedy"),
    [
        (5, 1, "train.batch_size 10 with train.grad_accum 1, or data.readers 1 in a new run"),
        (4, 3, "1, 2 or 4 processes, or data.readers 3 in a new run"),
        (1, 8, "1 process"),
        (9, 5, "1, 3 or 9 processes and train.batch_size 9 with train.grad_accum 1"),
    ],
)
def test_readers_must_divide_rows_and_processes_readers(
    tmp_path: Path, count: int, processes: int, remedy: str
) -> None:
    data = dataclasses.replace(shards(tmp_path, [20]), readers=count)
    with pytest.raises(UserError, match=rf"readers is {count}, but it must divide the 12 rows.*: take {remedy}\."):
        check_stream(data, Share(ROWS, process=0, processes=processes))


def test_a_stream_of_one_document_is_to_be_prepared(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the text is one document: leave data\.streaming out\."):
        prepare(shards(tmp_path, [1]), TokenizerConfig("char"), 1, progress=False)


def test_only_rows_of_one_kind_are_streamed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.streaming is train, but data\.source is python-docs"):
        row_stream(DataConfig(streaming="train"))
    shards(tmp_path, [2])
    write(tmp_path / "a.csv", ["x"])
    with pytest.raises(UserError, match="files of one kind"):
        row_stream(DataConfig(str(tmp_path), streaming="train"))
    with pytest.raises(UserError, match=r"leave out data\.join_rows"):
        DataConfig(streaming="train", join_rows=True)
