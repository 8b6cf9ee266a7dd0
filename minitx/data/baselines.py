"""What a model should beat: `xz -9e` and a byte n-gram on the same split, in bits per byte of validation text.

Both get the training text first. xz goes on learning while it reads validation text, the n-gram does not.
"""

import lzma
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minitx.data.prepare import Prepared
from minitx.data.token_files import Tokens
from minitx.data.tokenizer import Tokenizer
from minitx.system.errors import require

MAX_TRAIN_BYTES = 32 << 20
"""Of training text that a baseline takes: the last ones, nearest to the validation text."""
BLOCK = 1 << 20  # tokens or bytes handled at once
MAX_ORDER = 8  # bytes of an n-gram; more do not fit into a 64-bit number
FEW_DISCOUNTS = (0.0, 0.5, 1.0, 1.5)
"""For texts too short to estimate discounts, as KenLM takes them."""
Grams = NDArray[np.uint64]  # n bytes as a number, the last byte lowest
Floats = NDArray[np.float64]


class Level(NamedTuple):
    """The n-grams of one length, and their contexts, which are a byte shorter; both sorted."""

    grams: Grams
    shares: Floats
    """Of each gram: the probability of its last byte, less its discount."""
    contexts: Grams
    rests: Floats
    """Of each context: the probability left for shorter n-grams."""


def texts(prepared: Prepared) -> tuple[bytes, bytes]:
    """Training text, at most its last `MAX_TRAIN_BYTES`, and validation text; nothing stands between documents."""
    train = decoded(prepared.train[-MAX_TRAIN_BYTES:], prepared.tokenizer)  # a token has a byte at least
    return train[-MAX_TRAIN_BYTES:], decoded(prepared.val, prepared.tokenizer)


def decoded(tokens: Tokens, tokenizer: Tokenizer) -> bytes:
    """The bytes of `tokens`; end of document has none."""
    table = [tokenizer.token_bytes(id) for id in range(tokenizer.vocab_size)]
    blocks = (tokens[start : start + BLOCK].tolist() for start in range(0, len(tokens), BLOCK))
    return b"".join(b"".join(map(table.__getitem__, block)) for block in blocks)


def xz_bits_per_byte(train: bytes, val: bytes) -> float:
    """Bits that `xz -9e` adds for `val` after `train`, for each byte of `val`."""
    require(len(val) > 0, "The validation text is empty: raise data.val_fraction.")
    train = train[-MAX_TRAIN_BYTES:]
    return 8 * (xz_size(train + val) - xz_size(train)) / len(val)


def xz_size(text: bytes) -> int:
    """Bytes of `text` after `xz -9e`, with a window over the whole text."""
    window = {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": max(4096, len(text))}
    return len(lzma.compress(text, filters=[window]))


def ngram_bits_per_byte(train: bytes, val: bytes, order: int | None = None) -> float:
    """Mean of -log2 p for the bytes of `val`, each after the `order` - 1 bytes before it, learned from `train`.

    p: interpolated Kneser–Ney with three discounts (Chen and Goodman 1999, section 3), down to 1/256 for any byte.
    order: by default `best_order`.
    """
    order = best_order(train[-MAX_TRAIN_BYTES:]) if order is None else order
    require(1 <= order <= MAX_ORDER, f"The order of an n-gram is {order}, but it must be 1 to {MAX_ORDER}.")
    require(len(train) >= order and len(val) > 0, "The text is too short for an n-gram: use more text.")
    train, bits = train[-MAX_TRAIN_BYTES:], 0.0
    levels, text = levels_of(train, order), train[len(train) - order + 1 :] + val
    for start in range(0, len(val), BLOCK):
        grams = grams_of(text[start : start + BLOCK + order - 1], order)
        bits -= float(np.log2(probabilities(levels, grams)).sum())
    return bits / len(val)


def best_order(train: bytes) -> int:
    """The order that predicts the last tenth of `train` best from the rest."""
    cut = len(train) * 9 // 10
    orders = range(1, min(MAX_ORDER, cut) + 1)
    return min(orders, key=lambda order: ngram_bits_per_byte(train[:cut], train[cut:], order), default=1)


def grams_of(text: bytes, length: int) -> Grams:
    """All n-grams of a text, one from each place."""
    letters = np.frombuffer(text, np.uint8)
    grams: Grams = np.zeros(len(text) - length + 1, np.uint64)
    for place in range(length):
        grams = grams << np.uint64(8) | letters[place : place + len(grams)]
    return grams


def levels_of(train: bytes, order: int) -> list[Level]:
    """The levels of lengths 1 to `order`.

    The longest n-grams are counted. A shorter one counts once for every byte that stands before it.
    """
    grams, counts = np.unique(grams_of(train, order), return_counts=True)
    levels = [level(grams, counts)]
    for length in range(order - 1, 0, -1):
        grams, counts = np.unique(grams & last(length), return_counts=True)
        levels.insert(0, level(grams, counts))
    return levels


def level(grams: Grams, counts: NDArray[np.int64]) -> Level:
    """The level of sorted n-grams."""
    contexts, first = np.unique(grams >> np.uint64(8), return_index=True)
    totals, taken = np.add.reduceat(counts, first), discounts(counts)[np.minimum(counts, 3)]
    shares = (counts - taken) / np.repeat(totals, np.diff(first, append=len(grams)))
    return Level(grams, shares, contexts, np.add.reduceat(taken, first) / totals)


def discounts(counts: NDArray[np.int64]) -> Floats:
    """What counts of 0, 1, 2 and of 3 or more lose to shorter n-grams (Chen and Goodman 1999, equation 17)."""
    n = [np.count_nonzero(counts == count) for count in range(5)]
    if all(n[1:]):
        once = n[1] / (n[1] + 2 * n[2])
        found = [count - (count + 1) * once * n[count + 1] / n[count] for count in (1, 2, 3)]
        if min(found) > 0:
            return np.array([0.0, *found])
    return np.array(FEW_DISCOUNTS)


def probabilities(levels: list[Level], grams: Grams) -> Floats:
    """The probability of the last byte of each n-gram of the longest length after the bytes before it."""
    found: Floats = np.full(len(grams), 1 / 256)
    for length, (known, shares, contexts, rests) in enumerate(levels, start=1):
        short = grams & last(length)
        found = look_up(known, shares, short, 0.0) + look_up(contexts, rests, short >> np.uint64(8), 1.0) * found
    return found


def look_up(names: Grams, values: Floats, wanted: Grams, default: float) -> Any:
    """The values under the wanted names, of which `names` are sorted; `default` where a name is missing."""
    places = np.minimum(np.searchsorted(names, wanted), len(names) - 1)
    return np.where(names[places] == wanted, values[places], default)


def last(length: int) -> np.uint64:
    """Keeps the last `length` bytes of an n-gram."""
    return np.uint64((1 << 8 * length) - 1)
