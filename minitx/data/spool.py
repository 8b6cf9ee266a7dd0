"""A source's text on its way to the tokenizer: cut into pieces and kept in one file, to be read several times."""

import hashlib
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from minitx.data.sources import Piece
from minitx.data.tokenizer import utf8

MAX_CHARACTERS = 1 << 16  # of a piece, so that a long document needs no more memory than a short one
Advance = Callable[[int], object]  # called with the bytes just read or encoded, for a progress bar


class Spool:
    """All `pieces` of a source in one file. Iterating yields them again, cut to at most `MAX_CHARACTERS`."""

    HEADER = struct.Struct("<I??")  # of a piece: its bytes, whether its document ends with it, and only trains

    def __init__(self, path: Path, pieces: Iterator[Piece], advance: Advance) -> None:
        self.path = path
        self.bytes = 0
        self.documents: list[int] = []  # characters of every document
        self.only_train: set[int] = set()  # indices of the documents that are never held out
        is_new = True
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for piece in cut(pieces, MAX_CHARACTERS):
                data = utf8(piece.text)
                file.write(self.HEADER.pack(len(data), piece.last, piece.only_trains) + data)
                digest.update(data + b"\xff" * piece.last)  # a byte that UTF-8 never has ends a document
                if is_new:
                    self.only_train |= {len(self.documents)} if piece.only_trains else set()
                    self.documents.append(0)
                self.documents[-1] += len(piece.text)
                is_new = piece.last
                self.bytes += len(data)
                advance(len(data))
        self.fingerprint = digest.hexdigest()

    def __iter__(self) -> Iterator[Piece]:
        with self.path.open("rb") as file:
            while header := file.read(self.HEADER.size):
                size, last, only_trains = self.HEADER.unpack(header)
                yield Piece(file.read(size).decode("utf-8"), last, only_trains)


def cut(pieces: Iterator[Piece], size: int) -> Iterator[Piece]:
    """Cut documents into pieces of at most `size` characters, whatever pieces they come in.

    A cut comes after a line break, which no token spans. A longer line is cut before a space, or else anywhere, which
    may cost a token or two.
    """
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
            yield Piece(rest[start:end], False, piece.only_trains)
            start = end
        rest = rest[start:]
        if piece.last:
            yield Piece(rest, True, piece.only_trains)
            rest = ""
