"""Training text straight from a stream, for data sets too large to be prepared: rows → documents → tokens → batches.

A fixed number of readers, whatever the number of processes, share out the data. Row i of an update comes from reader
i modulo their number, and a process runs the readers of its rows. A reader whose part is exhausted begins it anew.
"""

import dataclasses
import functools
import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from minitx.config import DataConfig
from minitx.data import sources
from minitx.data.batches import Batches, Dropout, Share
from minitx.data.hub import patiently, revision, text_of
from minitx.data.prepare import Prepared
from minitx.data.sources import Piece
from minitx.data.spool import MAX_CHARACTERS, cut
from minitx.data.token_files import Tokens
from minitx.data.tokenizer import Tokenizer, utf8
from minitx.system.errors import require
from minitx.system.fields import Fields
from minitx.system.files import digest

Encode = Callable[[str], Tokens | None]
"""The tokens of a document, or None where it must not train."""


@dataclass(frozen=True)
class Place:
    """Where a reader is: documents come in blocks, each in an order that depends on (seed, epoch, reader, block)."""

    epoch: int = 0
    block: int = 0
    library: dict[str, Any] | None = None
    """The library's `state_dict` before the block; None at the beginning of an epoch."""
    document: int = 0
    """In the order of the block."""
    token: int = 0
    """In the document."""
    window: int = 0
    """Windows read so far, over all epochs."""


class Reader:
    """Reads one of `count` parts of the data, epoch by epoch, and packs its documents into windows.

    The library's own shuffle buffer loses its content where a run is resumed. So a reader shuffles whole blocks, and
    reads the block under way again.
    """

    def __init__(self, data: DataConfig, rows: Callable[[], Any], number: int, seed: int, encode: Encode) -> None:
        self._data, self._rows, self._number, self._seed, self._encode = data, rows, number, seed, encode
        self.restore(Place())

    def restore(self, place: Place) -> None:
        """Go on at `place`."""
        self.place = place
        self._documents = self._read(place)
        self._ahead: deque[tuple[Place, Tokens]] = deque()  # documents not yet used up; the first is that of `place`

    def window(self, length: int) -> Tokens:
        """The next `length` tokens and the one after them, with which the next window begins."""
        place, start = self.place, self.place.token
        while sum(len(tokens) for _, tokens in self._ahead) <= start + length:
            self._ahead.append(next(self._documents))
        parts = [self._ahead[0][1][start : start + length + 1]]
        for _, tokens in islice(self._ahead, 1, None):
            parts.append(tokens[: length + 1 - sum(map(len, parts))])
        start += length
        while start >= len(self._ahead[0][1]):
            start -= len(self._ahead.popleft()[1])
        self.place = dataclasses.replace(self._ahead[0][0], token=start, window=place.window + 1)
        return np.concatenate(parts)

    def _read(self, place: Place) -> Iterator[tuple[Place, Tokens]]:
        """The documents from that of `place` on, without end."""
        barren = 0  # epochs without a document
        while barren < 2:  # of the first one perhaps only the end is read
            barren += 1
            for block, library, rows in self._blocks(place):
                texts = [text for row in rows for text in text_of(row, self._data.source, self._data.text_column)]
                random = np.random.default_rng([self._seed, place.epoch, self._number, block])
                order = random.permutation(len(texts)).tolist()
                for i in range(place.document if block == place.block else 0, len(texts)):
                    if (tokens := self._encode(texts[order[i]])) is not None:
                        barren = 0
                        yield Place(place.epoch, block, library, i), tokens
            place = Place(place.epoch + 1)
        parts = f"reader {self._number + 1} of {self._data.readers} finds no document of its own to train on"
        require(False, f"Data set {self._data.source}: {parts}: lower data.readers or data.max_documents.")

    def _blocks(self, place: Place) -> Iterator[tuple[int, dict[str, Any] | None, list[dict[str, Any]]]]:
        """The blocks of an epoch from that of `place` on: number, the library's state before it, rows."""
        block, library = place.block, place.library
        opened: list[tuple[Any, Iterator[dict[str, Any]]]] = []

        def rows() -> Iterator[dict[str, Any]]:
            data, part = opened.pop() if opened else self._open(place.epoch, library)  # anew after a fault
            yield from islice(part, self._data.buffer)
            opened.append((data, part))

        while read := list(patiently(self._data, functools.partial(sources.streamed, self._data, rows))):
            yield block, library, read
            block, library = block + 1, opened[0][0].state_dict()

    def _open(self, epoch: int, library: dict[str, Any] | None) -> tuple[Any, Iterator[dict[str, Any]]]:
        """This reader's part of the data, its shards in the order of the epoch, and its rows from `library` on."""
        from datasets.distributed import split_dataset_by_node

        data, count = self._rows(), self._data.readers
        if data.num_shards >= count:
            data = data.shard(num_shards=count, index=self._number)
        else:  # every `count`-th row
            data = split_dataset_by_node(data, rank=self._number, world_size=count)
        data.set_epoch(1 + int(np.random.SeedSequence([self._seed, epoch]).generate_state(1)[0]))  # orders the shards
        if library is not None:
            data.load_state_dict(library)
        return data, iter(data)


class Stream(Batches):
    """`Batches` of what the readers read, of which a process runs those of its rows.

    `prepared` is the beginning of the text. Documents that validate do not train, wherever they come in the stream.
    """

    def __init__(
        self,
        data: DataConfig,
        prepared: Prepared,
        context_length: int,
        batch_size: int,
        seed: int,
        device: torch.device | None = None,
        share: Share | None = None,
        dropout: Dropout | None = None,
    ) -> None:
        self._share, self._dropout, self._device = share or Share(batch_size), dropout, device
        self._context_length, self._seed, self._count = context_length, seed, data.readers
        self._waiting = []
        check_stream(data, self._share)
        self._text = identity(data)
        held_out = digests(prepared.val, prepared.tokenizer.end_of_document)

        def encode(text: str) -> Tokens | None:
            tokens = document_tokens(prepared.tokenizer, text)
            return None if digest_of(tokens) in held_out else tokens

        opened = functools.cache(functools.partial(sources.row_stream, data))
        own = range(self._share.process, data.readers, self._share.processes)
        self._readers = {number: Reader(data, opened, number, seed, encode) for number in own}

    def _take(self, share: Share) -> list[list[tuple[int, int, int]]]:
        """(start, reader, window) of each row of the next update that this process reads, in parts."""
        rows = range(share.process, share.rows, share.processes)
        own = [row % self._count for row in rows if row % self._count in self._readers]
        windows, size = [self._readers[number].place.window for number in own], self._context_length + 1
        self._tokens = np.concatenate([self._readers[number].window(self._context_length) for number in own])
        places = [(i * size, number, windows[i]) for i, number in enumerate(own)]
        size = -(-len(own) // share.parts)
        return [places[first : first + size] for first in range(0, len(own), size)]

    def rows(self) -> torch.Tensor:
        """The inputs (row, seq) for the next update, of this process alone."""
        return super().rows()

    @property
    def epochs(self) -> int:
        """How many times a reader has read all of its part."""
        return max(reader.place.epoch for reader in self._readers.values())

    def state(self) -> dict[str, Any]:
        """Where the next update starts: the place of each reader of this process; None for the others."""
        readers = [self._readers.get(number) for number in range(self._count)]
        return {"text": self._text, "readers": [reader and vars(reader.place) for reader in readers]}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned, `merged` over processes; raises `UserError` if that is of other data."""
        is_same = state.get("text") == self._text and len(state["readers"]) == self._count
        remedy = "put back its files or its commit of that time, or start a new run from these weights with --init_from"
        require(is_same, f"the data set has changed since the checkpoint, or its readers have: {remedy}.")
        self._waiting = []
        for number, reader in self._readers.items():
            reader.restore(Place(**state["readers"][number]))


def check_stream(data: DataConfig, share: Share) -> None:
    """Raise `UserError` where the source has no rows to stream, or readers cannot be shared out evenly."""
    if not sources.is_on_hub(data.source):
        sources.row_files(data)
    rows, processes, readers, remedies = share.rows, share.processes, data.readers, []
    if readers % processes:
        *fewer, most = [str(count) for count in range(1, readers + 1) if readers % count == 0]
        remedies.append(f"{', '.join(fewer)} or {most} processes" if fewer else "1 process")
    if rows % readers:
        remedies.append(f"train.batch_size {max(1, round(rows / readers)) * readers} with train.grad_accum 1")
    anew = f", or data.readers {processes} in a new run" if rows % processes == 0 else ""
    require(
        not remedies,
        f"data.readers is {readers}, but it must divide the {rows} rows of an update, and the processes "
        f"({processes}) must divide it: take {' and '.join(remedies)}{anew}.",
    )


def merged(states: list[dict[str, Any]]) -> dict[str, Any]:
    """One state from those of all processes, each of which knows its own readers; of `Batches` all are the same."""
    if "readers" not in states[0]:
        return states[0]
    places = zip(*(state["readers"] for state in states), strict=True)
    return {**states[0], "readers": [next(place for place in known if place) for known in places]}


def read_place(fields: Fields) -> dict[str, Any]:
    """What `state` of `Batches` or `Stream` wrote into a file; raises `UserError` that names a wrong field."""
    if not fields.has("readers"):
        return {name: fields.whole(name) for name in ("epoch", "position")}
    readers, places = fields.inside("readers", list, least=1), []
    for number in readers:
        place = readers.inside(number, dict)
        library = place.inside("library", dict).content if place.has("library") else None
        whole = {name: place.whole(name) for name in ("epoch", "block", "document", "token", "window")}
        places.append({**whole, "library": library})
    return {"text": fields.text("text", "[0-9a-f]{64}"), "readers": places}


def identity(data: DataConfig) -> str:
    """A hash of the data set's revision, or of the names and sizes of the files."""
    if sources.is_on_hub(data.source):
        return digest({"revision": revision(data)})
    return digest({"files": [[path.name, path.stat().st_size] for path in sources.row_files(data)[0]]})


def document_tokens(tokenizer: Tokenizer, text: str) -> Tokens:
    """The tokens of a document and its end, as a token file has them."""
    pieces = [utf8(piece.text) for piece in cut(iter([Piece(text, True)]), MAX_CHARACTERS)]
    return np.concatenate([*tokenizer.encode_batch(pieces), np.array([tokenizer.end_of_document], np.int32)])


def digests(tokens: Tokens, end: int) -> set[bytes]:
    """Hashes of the documents in a token file, and of the empty one, whose end comes first there."""
    return {digest_of(part) for part in np.split(tokens, np.flatnonzero(tokens == end) + 1)}


def digest_of(tokens: Tokens) -> bytes:
    """A hash of a document's tokens."""
    return hashlib.blake2b(tokens.astype("<u4").tobytes(), digest_size=16).digest()
