"""Reads from a snapshot how much every head attends from some tokens to others, without reading whole patterns.

Needs neither torch nor TensorBoard. Row i of a packed pattern starts at entry i (i + 1) / 2, so the rows of a few
queries are a few bytes of every head.
"""

from collections.abc import Mapping
from itertools import accumulate, pairwise
from typing import Any, BinaryIO
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from minitx.heads.packing import SMALL, Levels, pairs
from minitx.heads.snapshots import part_sizes
from minitx.system.errors import require

MAX_ROW_BYTES = 2**24
"""Of one snapshot; more are refused before memory is taken."""


def head_weights(
    file: BinaryIO, header: Mapping[str, Any], probe: int, query: range, key: range | None, *, is_of_words: bool = False
) -> NDArray[np.floating[Any]]:
    """(layer * head,): the attention of every head from the tokens `query` to the tokens `key`.

    That is the mean over the query tokens of the sum over the key tokens. Without `key` it is the largest of the single
    tokens before the query, or of the words if `is_of_words`; the first is left out. NaN where a head was removed or
    nothing is left. `file` is at its patterns, as `read_header` leaves it. The checksum is checked for texts of up to
    `SMALL` tokens; of a longer text only the rows are read. Raises UserError if the text lacks the tokens.
    """
    require(0 <= probe < len(header["probes"]), f"This snapshot has no probe {probe}.")
    seq = len(header["probes"][probe]["tokens"])
    for span in (query, key or query):
        require(0 <= span.start < span.stop <= seq, f"This text has no tokens {span.start} to {span.stop - 1}.")
    levels = _rows(file, header, probe, query)  # (layer * head, byte)
    ends = [pairs(token) - pairs(query.start) for token in range(query.start, query.stop + 1)]
    mean = np.zeros((len(levels), query.stop), np.float32)  # (layer * head, key)
    for start, stop in pairwise(ends):
        mean[:, : stop - start] += (levels[:, start:stop] / np.float32(255)) ** 2 / len(query)
    if key is not None:
        found = mean[:, key.start : key.stop].sum(axis=-1)
    else:
        words = header["probes"][probe].get("words") if is_of_words else None
        starts = [start for start in words or range(seq) if start < query.start]
        sums = np.add.reduceat(mean[:, : query.start], starts, axis=-1) if len(starts) > 1 else mean[:, :0]
        found = sums[:, 1:].max(axis=-1, initial=-1)
        found[found < 0] = np.nan
    return np.where(levels.any(axis=-1), found, np.nan)


def _rows(file: BinaryIO, header: Mapping[str, Any], probe: int, query: range) -> Levels:
    """(layer * head, byte): the packed rows `query` of every head."""
    before = sum(sum(part_sizes(skipped, header)) for skipped in header["probes"][:probe])
    chosen, count = header["probes"][probe], header["layers"] * header["heads"]
    start, stop = pairs(query.start), pairs(query.stop)
    require(count * (stop - start) <= MAX_ROW_BYTES, "This span of tokens is too long: ask for fewer.")
    places = [file.tell() + before + size for size in accumulate(part_sizes(chosen, header), initial=0)]
    if len(chosen["tokens"]) <= SMALL:
        file.seek(places[0])
        part = file.read(places[1] - places[0])
        is_whole = "checksums" not in chosen or crc32(part) == chosen["checksums"][0]
        require(is_whole, "This snapshot is damaged: its patterns do not fit their checksums.")
        return np.frombuffer(part, np.uint8).reshape(count, -1)[:, start:stop]
    rows = np.zeros((count, stop - start), np.uint8)
    for place, head in zip(places[1:], chosen.get("whole", range(count)), strict=False):
        file.seek(place + start)
        rows[head] = np.frombuffer(file.read(stop - start), np.uint8)
    return rows
