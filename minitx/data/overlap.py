"""How much of the validation text stands in the training text too, where a model may learn it by heart.

Stretches of `STRETCH` characters, laid end to end over every validation document, are looked up at every place of the
training documents. A rolling hash (Karp and Rabin 1987) stands for each, so memory holds a few numbers per stretch.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from minitx.data.sources import Piece
from minitx.data.spool import MAX_CHARACTERS

STRETCH = 200  # characters
END = "\0"  # stands after a document, and fills one that is shorter than a stretch
BASE = 0x9E3779B97F4A7C15  # of the hash: any large odd number
Numbers = np.ndarray[Any, np.dtype[Any]]


def compare_splits(pieces: Callable[[], Iterator[tuple[str, Piece]]]) -> tuple[str, float]:
    """SHA-256 of the validation text, in hexadecimal; the share of its characters that stand in the training text too.

    `pieces()` gives the text anew, each piece with its split. The rest of a document after its last whole stretch is
    not looked up; a document shorter than a stretch is looked up as a whole document.
    """
    digest = hashlib.sha256()
    hashes, characters = [], []
    for block in _blocks(_val_stretches(pieces(), digest.update), overlap=0):
        codes = _codes(block).reshape(-1, STRETCH)
        hashes.append((codes * POWERS[:STRETCH]).sum(1))
        characters.append(np.count_nonzero(codes, axis=1))
    wanted, index = np.unique(np.concatenate(hashes), return_inverse=True)
    found = np.zeros(len(wanted), bool)
    shift = 60 - len(wanted).bit_length()
    beginnings = np.zeros(1 << (64 - shift), bool)  # of wanted hashes: they rule out 15 of 16 others at once
    beginnings[wanted >> shift] = True
    for block in _blocks(_train_text(pieces()), overlap=STRETCH - 1):
        rolling = _rolling_hashes(_codes(block))
        rolling = rolling[beginnings[rolling >> shift]]
        places = np.searchsorted(wanted[:-1], rolling)  # where each must be if it is wanted
        found[places[wanted[places] == rolling]] = True
    sizes = np.concatenate(characters)
    return digest.hexdigest(), float(sizes[found[index]].sum() / max(1, sizes.sum()))


def _val_stretches(pieces: Iterator[tuple[str, Piece]], update: Callable[[bytes], object]) -> Iterator[str]:
    """The validation text in whole stretches; `update` gets all its bytes, and one that UTF-8 never has as an end."""
    rest, is_short = "", True
    for split, piece in pieces:
        if split == "val":
            update(piece.text.encode() + b"\xff" * piece.last)
            rest += piece.text
            if piece.last and is_short:
                rest = rest.ljust(STRETCH, END)
            whole = len(rest) - len(rest) % STRETCH
            yield rest[:whole]
            rest, is_short = ("", True) if piece.last else (rest[whole:], is_short and whole == 0)


def _train_text(pieces: Iterator[tuple[str, Piece]]) -> Iterator[str]:
    """The training text, with one `END` after each document, and more where it is shorter than a stretch."""
    size = 0
    for split, piece in pieces:
        if split == "train":
            size += len(piece.text)
            yield piece.text + END * (max(1, STRETCH - size) if piece.last else 0)
            size = 0 if piece.last else size


def _blocks(texts: Iterator[str], overlap: int) -> Iterator[str]:
    """`texts` joined to blocks that fit the processor's cache; each repeats the last `overlap` characters before it."""
    held, size = [""], 0
    for text in texts:
        held.append(text)
        size += len(text)
        if size >= MAX_CHARACTERS:
            block = "".join(held)
            yield block
            held, size = [block[len(block) - overlap :]], overlap
    yield "".join(held)


def _codes(text: str) -> Numbers:
    return np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.uint64)


def _rolling_hashes(codes: Numbers) -> Numbers:
    """The hash of the `STRETCH` codes from each place on: the sum of code i times BASE**i, modulo 2**64."""
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum(codes * POWERS[: len(codes)], out=sums[1:])
    differences = sums[STRETCH:] - sums[:-STRETCH]
    return differences * INVERSE_POWERS[: len(differences)]


def _powers(base: int) -> Numbers:
    """1, base, base**2 and so on modulo 2**64, for the longest block."""
    powers = np.full(2 * (MAX_CHARACTERS + STRETCH), base, np.uint64)
    powers[0] = 1
    return np.cumprod(powers)


POWERS, INVERSE_POWERS = _powers(BASE), _powers(pow(BASE, -1, 1 << 64))
