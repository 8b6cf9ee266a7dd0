"""Snapshots of the heads: what each attended to on the probes at one step, a small file that TensorBoard's tab reads.

    runs/NAME/attention/step-000100.heads = MAGIC, length of the header, header (JSON), patterns

`encode` makes one of numpy arrays, `write` puts it into a run, `read_header` and `extract` read it with everything
checked, for a file may be cut short or made by a stranger. A weight p is stored as the byte 255 √p, which is off by
0.004 at most, by less where p is small, and tells 0.0001 from nothing; patterns are causal, so only key ≤ query is
stored, row by row. A probe of more than `SMALL` tokens is stored twice, first reduced to `SMALL` (the largest weight of
each block), so that the picture of all heads is quick to load.
"""

from __future__ import annotations

import io
import json
import math
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from minitx.system.files import step_name, write_atomically
from minitx.system.files import steps_in as steps_in  # for the tab, which imports no other module

MAGIC = b"minitx attention 1\n"
FOLDER = "attention"
SUFFIX = ".heads"
SMALL = 64
"""Tokens up to which a pattern is stored once; a longer one is reduced to this many rows or fewer besides."""
MAX_HEADS, MAX_TOKENS, MAX_PROBES, MAX_HEADER_BYTES = 4096, 8192, 256, 2**24
"""What a reader believes; a file that declares more is refused before memory is taken."""

Floats = NDArray[np.floating[Any]]
Levels = NDArray[np.uint8]


class SnapshotError(Exception):
    """A snapshot that cannot be read. The message is one sentence."""


@dataclass(frozen=True)
class Link:
    """A pair of token spans that belong together, such as a pronoun and its noun; [start, end) each."""

    name: str
    query: tuple[int, int]
    """The span that comes later and may look back."""
    key: tuple[int, int]


@dataclass(frozen=True)
class Probe:
    """A text and what every head attends to in it."""

    text: str
    tokens: Sequence[str]
    """A label for each token."""
    patterns: Floats
    """(layer, head, query, key)"""
    links: Sequence[Link] = ()


# Writing


def encode(
    step: int,
    probes: Sequence[Probe],
    scores: Mapping[str, Floats] | None = None,
    chance: Mapping[str, float] | None = None,
    roles: Sequence[Sequence[str]] | None = None,
) -> bytes:
    """The bytes of a snapshot.

    `scores` are arrays (layer, head) by name, anything that heads can be compared by (importance, too); `chance` is
    what uniform attention scores; `roles` (layer, head) are names such as "previous token" or "unclassified". Raises
    ValueError where the shapes disagree.
    """
    layers, heads = probes[0].patterns.shape[:2]
    for probe in probes:
        seq = len(probe.tokens)
        if probe.patterns.shape != (layers, heads, seq, seq) or seq == 0:
            raise ValueError(f"patterns {probe.patterns.shape} are not ({layers}, {heads}, {seq}, {seq})")
    for name, values in (scores or {}).items():
        if values.shape != (layers, heads):
            raise ValueError(f"score {name} {values.shape} is not ({layers}, {heads})")
    header = {
        "step": step,
        "written": round(time.time(), 3),
        "layers": layers,
        "heads": heads,
        "scores": {name: [_number(value) for value in values.ravel()] for name, values in (scores or {}).items()},
        "chance": {name: _number(value) for name, value in (chance or {}).items()},
        "roles": [role for layer in roles or [] for role in layer],
        "probes": [
            {
                "text": _unicode(probe.text),
                "tokens": [_unicode(token) for token in probe.tokens],
                "links": [{"name": link.name, "query": link.query, "key": link.key} for link in probe.links],
            }
            for probe in probes
        ],
    }
    pieces: list[bytes] = []
    for probe in probes:
        levels = encode_weights(probe.patterns)  # (layer, head, query, key)
        if len(probe.tokens) > SMALL:
            pieces.append(pack(reduce(levels)).tobytes())
        pieces.append(pack(levels).tobytes())
    return _assemble(header, pieces)


def write(run: Path, step: int, content: bytes) -> Path:
    """Put a snapshot into a run folder; a reader sees all of it or nothing."""
    (run / FOLDER).mkdir(exist_ok=True)
    place = path(run, step)
    write_atomically(place, content)
    return place


def forget_after(run: Path, step: int) -> None:
    """Remove the snapshots after `step`, which a resumed run writes again."""
    for later in steps(run):
        if later > step:
            with suppress(FileNotFoundError):
                path(run, later).unlink()


def encode_weights(weights: Floats) -> Levels:
    """Weights 0 to 1 → bytes 255 √p; what is not a number becomes 0."""
    levels = np.sqrt(weights, dtype=np.float32)
    levels *= 255
    levels += 0.5
    clean: Levels = np.clip(np.nan_to_num(levels), 0, 255).astype(np.uint8)
    return clean


def pack(levels: Levels) -> Levels:
    """(…, query, key) → (…, pair): the entries up to the diagonal, row by row."""
    seq = levels.shape[-1]
    return np.take(levels.reshape(*levels.shape[:-2], seq * seq), _triangle(seq), axis=-1)


def reduce(levels: Levels) -> Levels:
    """(…, seq, seq) → (…, side, side): the largest entry of each square block of `block_size(seq)` tokens."""
    starts = np.arange(0, levels.shape[-1], block_size(levels.shape[-1]))
    reduced: Levels = np.maximum.reduceat(np.maximum.reduceat(levels, starts, axis=-1), starts, axis=-2)
    return reduced


def block_size(seq: int) -> int:
    """Tokens that share a row of the reduced pattern."""
    return -(-seq // SMALL)


def pairs(seq: int) -> int:
    """Entries of a causal pattern."""
    return seq * (seq + 1) // 2


@lru_cache(maxsize=16)
def _triangle(seq: int) -> NDArray[np.intp]:
    queries, keys = np.tril_indices(seq)
    return np.asarray(queries * seq + keys, np.intp)


def _number(value: Any) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None


def _unicode(text: str) -> str:
    """`text` without lone surrogates, which JSON could hold but UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _assemble(header: Mapping[str, Any], pieces: Iterable[bytes]) -> bytes:
    text = json.dumps(header, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
    return b"".join([MAGIC, struct.pack("<I", len(text)), text, *pieces])


# Reading


def steps(run: Path) -> list[int]:
    """The steps that a run folder has snapshots of, in order."""
    try:
        return steps_in((file.name for file in (run / FOLDER).iterdir()), SUFFIX)
    except OSError:
        return []


def path(run: Path, step: int) -> Path:
    """Where the snapshot of `step` lies."""
    return run / FOLDER / (step_name(step) + SUFFIX)


def read_header(file: BinaryIO) -> dict[str, Any]:
    """The header of a snapshot, every value of it checked, the size of the file, too; leaves `file` at the patterns.

    Raises SnapshotError.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    start = file.read(len(MAGIC) + 4)
    if not start.startswith(MAGIC):
        raise SnapshotError("This is not a snapshot that this version of minitx reads.")
    if len(start) < len(MAGIC) + 4:
        raise SnapshotError("This snapshot is cut short.")
    (length,) = struct.unpack("<I", start[len(MAGIC) :])
    if length > MAX_HEADER_BYTES:
        raise SnapshotError("This snapshot declares more than a snapshot holds.")
    if length > size - len(start):
        raise SnapshotError("This snapshot is cut short.")
    try:
        header = json.loads(file.read(length).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise SnapshotError("The header of this snapshot is damaged.") from error
    try:
        checked = _check(header)
    except (KeyError, TypeError, ValueError) as error:
        raise SnapshotError(f"The header of this snapshot is damaged ({_fault(error)}).") from error
    expected = sum(_size(probe, checked) for probe in checked["probes"])
    if size - file.tell() != expected:
        word = "cut short" if size - file.tell() < expected else "longer than it declares"
        raise SnapshotError(f"This snapshot is {word}.")
    return checked


def extract(file: BinaryIO, probe: int, heads: Sequence[int] = ()) -> bytes:
    """A snapshot with one probe of it and, where that is long, the whole patterns of `heads` only.

    `heads` count through the layers: layer * heads + head; those that are not there are left out. Raises
    SnapshotError, also where there is no such probe.
    """
    header = read_header(file)
    if not 0 <= probe < len(header["probes"]):
        raise SnapshotError(f"This snapshot has no probe {probe}.")
    for skipped in header["probes"][:probe]:
        file.seek(_size(skipped, header), io.SEEK_CUR)
    chosen = dict(header["probes"][probe])
    seq, count = len(chosen["tokens"]), header["layers"] * header["heads"]
    pieces = []
    if seq > SMALL:
        pieces.append(file.read(count * pairs(-(-seq // block_size(seq)))))
        there = chosen.get("whole", list(range(count)))
        chosen["whole"] = sorted({head for head in heads if head in there})
        start = file.tell()
        for head in chosen["whole"]:
            file.seek(start + there.index(head) * pairs(seq))
            pieces.append(file.read(pairs(seq)))
    else:
        pieces.append(file.read(count * pairs(seq)))
    return _assemble({**header, "probes": [chosen]}, pieces)


def _size(probe: Mapping[str, Any], header: Mapping[str, Any]) -> int:
    """Bytes of a probe's patterns."""
    seq, count = len(probe["tokens"]), header["layers"] * header["heads"]
    if seq <= SMALL:
        return count * pairs(seq)
    return count * pairs(-(-seq // block_size(seq))) + len(probe.get("whole", range(count))) * pairs(seq)


def _check(header: Any) -> dict[str, Any]:
    """The header's known entries, each of its type and within bounds; KeyError, TypeError or ValueError otherwise."""
    layers, heads = _whole(header["layers"], 1, MAX_HEADS), _whole(header["heads"], 1, MAX_HEADS)
    count = _whole(layers * heads, 1, MAX_HEADS)
    probes = []
    for probe in _list(header["probes"], 1, MAX_PROBES):
        seq = len(_list(probe["tokens"], 1, MAX_TOKENS))
        checked: dict[str, Any] = {
            "text": _text(probe["text"]),
            "tokens": [_text(token) for token in probe["tokens"]],
            "links": [
                {"name": _text(link["name"]), "query": _span(link["query"], seq), "key": _span(link["key"], seq)}
                for link in _list(probe.get("links", []), 0, 1000)
            ],
        }
        if "whole" in probe:
            checked["whole"] = [_whole(head, 0, count - 1) for head in _list(probe["whole"], 0, count)]
        probes.append(checked)
    return {
        "step": _whole(header["step"], 0, 10**12),
        "written": _real(header.get("written", 0)),
        "layers": layers,
        "heads": heads,
        "scores": {
            _text(name): [None if value is None else _real(value) for value in _list(values, count, count)]
            for name, values in dict(header.get("scores", {})).items()
        },
        "chance": {
            _text(name): None if value is None else _real(value)
            for name, value in dict(header.get("chance", {})).items()
        },
        "roles": [_text(role) for role in _list(header.get("roles", []), 0, count)],
        "probes": probes,
    }


def _whole(value: Any, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{value!r:.40} is not a whole number from {least} to {most}")
    return value


def _real(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{value!r:.40} is not a number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is not a text")
    return value


def _list(value: Any, least: int, most: int) -> list[Any]:
    if not isinstance(value, list) or not least <= len(value) <= most:
        raise ValueError(f"{value!r:.40} is not a list of {least} to {most} entries")
    return value


def _span(value: Any, seq: int) -> list[int]:
    start, end = _list(value, 2, 2)
    return [_whole(start, 0, seq - 1), _whole(end, _whole(start, 0, seq - 1) + 1, seq)]


def _fault(error: Exception) -> str:
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
