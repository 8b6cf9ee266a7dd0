"""A source's text on its way to the tokenizer: cut into chunks, kept in one file that can be gone through again."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from minitx.data.sources import Piece
from minitx.system.errors import UserError

CHUNK = 1 << 16  # characters encoded at once, which bounds what a long document needs


class Chunk(NamedTuple):
    """At most `CHUNK` characters of a document as UTF-8; `last` where the document ends with them."""

    data: bytes
    characters: int
    last: bool


class Spool:
    """A source's text in one file, so that a source is read once however often its text is gone through."""

    RECORD = struct.Struct("<II?")

    def __init__(self, path: Path, pieces: Iterator[Piece], advance: Callable[[int], None]) -> None:
        self.path = path
        self.characters = self.bytes = 0
        self.documents: list[int] = []
        """Characters of each document."""
        is_new = True
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for chunk in rechunk(pieces, CHUNK):
                file.write(self.RECORD.pack(len(chunk.data), chunk.characters, chunk.last) + chunk.data)
                digest.update(chunk.data + b"\xff" * chunk.last)  # a byte that UTF-8 never has ends a document
                if is_new:
                    self.documents.append(0)
                self.documents[-1] += chunk.characters
                is_new = chunk.last
                self.characters += chunk.characters
                self.bytes += len(chunk.data)
                advance(len(chunk.data))
        self.fingerprint = digest.hexdigest()

    def __iter__(self) -> Iterator[Chunk]:
        with self.path.open("rb") as file:
            while record := file.read(self.RECORD.size):
                size, characters, last = self.RECORD.unpack(record)
                yield Chunk(file.read(size), characters, last)


def rechunk(pieces: Iterator[Piece], size: int) -> Iterator[Chunk]:
    """Cut documents into chunks of at most `size` characters: after a line break, where no token reaches across, or
    else before a space, or else anywhere, which costs a token or two but never any text."""
    rest = ""
    for piece in pieces:
        rest += piece.text
        start = 0
        while len(rest) - start > size:
            end = rest.rfind("\n", start, start + size) + 1
            if end <= start:
                end = rest.rfind(" ", start + 1, start + size)
            if end <= start:
                end = start + size
            yield new_chunk(rest[start:end], False)
            start = end
        rest = rest[start:]
        if piece.last:
            yield new_chunk(rest, True)
            rest = ""


def new_chunk(text: str, last: bool) -> Chunk:
    """A chunk of `text`; raises `UserError` where that is no valid Unicode."""
    try:
        return Chunk(text.encode("utf-8"), len(text), last)
    except UnicodeEncodeError as error:
        raise UserError(
            f"The text holds a lone surrogate (U+{ord(text[error.start]):04X}), which is not valid Unicode: take it "
            "out of the source."
        ) from error
