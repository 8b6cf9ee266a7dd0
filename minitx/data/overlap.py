"""How much of the validation text stands in the training text too, where a model may learn it by heart."""

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from minitx.data.sources import Piece
from minitx.data.spool import MAX_CHARACTERS

STRETCH = 200  # characters
END = "\0"  # fills a document, with at least one, up to whole stretches
BASE = 0x9E3779B97F4A7C15  # of the hash: any large odd number


def share_in_training(pieces: Callable[[], Iterator[tuple[str, Piece]]]) -> float:
    """The share of validation text, in stretches of `STRETCH` characters, that stands anywhere in the training text.

    `pieces()` gives the text anew, each piece with its split. Stretches lie end to end; the rest of a document after
    its last is not looked up, but a shorter document is, at the ends of training documents. Rolling hashes stand for
    them (Karp and Rabin 1987): the sum of character i times BASE**i, modulo 2**64.
    """
    exponents = np.arange(2 * (MAX_CHARACTERS + STRETCH), dtype=np.uint64)
    powers, inverses = np.uint64(BASE) ** exponents, np.uint64(pow(BASE, -1, 1 << 64)) ** exponents
    hashes, sizes = [], []
    for characters in _blocks(pieces(), "val", overlap=0):
        stretches = characters.reshape(-1, STRETCH)
        hashes.append((stretches * powers[:STRETCH]).sum(axis=1))
        sizes.append(np.count_nonzero(stretches, axis=1))
    size = np.concatenate(sizes)
    looked_up = (size == STRETCH) | np.append(True, size[:-1] < STRETCH)  # whole, or the first of a document
    wanted, index = np.unique(np.concatenate(hashes)[looked_up], return_inverse=True)
    found = np.zeros(len(wanted), bool)
    shift = 59 - len(wanted).bit_length()
    first_bits = np.zeros(1 << (64 - shift), bool)  # of the wanted hashes: they rule out 31 of 32 others at once
    first_bits[wanted >> shift] = True
    for characters in _blocks(pieces(), "train", overlap=STRETCH - 1):
        sums = np.append(np.uint64(0), np.cumsum(characters * powers[: len(characters)]))
        rolling = (sums[STRETCH:] - sums[:-STRETCH]) * inverses[: len(characters) - STRETCH + 1]
        rolling = rolling[first_bits[rolling >> shift]]
        place = np.searchsorted(wanted[:-1], rolling)  # where each must be if it is wanted
        found[place[wanted[place] == rolling]] = True
    return float(size[looked_up][found[index]].sum() / max(1, size[looked_up].sum()))


def _blocks(pieces: Iterator[tuple[str, Piece]], split: str, overlap: int) -> Iterator[npt.NDArray[np.uint32]]:
    """The characters of a split as numbers, in blocks; each begins with the last `overlap` of the block before it."""
    text = END * overlap
    for name, piece in pieces:
        if name == split:
            text += piece.text
            if piece.last:
                text += END * (STRETCH - (len(text) - overlap) % STRETCH)
            if len(text) >= MAX_CHARACTERS:
                end = len(text) - (len(text) - overlap) % STRETCH
                yield np.frombuffer(text[:end].encode("utf-32-le"), "<u4")
                text = text[end - overlap :]
    yield np.frombuffer(text.encode("utf-32-le"), "<u4")
