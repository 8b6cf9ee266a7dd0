"""Snapshots of the heads: what every head attends to on the probes at one step, in a small file for the Attention tab.

    runs/NAME/attention/step-000100.heads = MAGIC, length of the header, header (JSON), patterns

`encode` makes a snapshot of numpy arrays and `write` puts it into a run. `read_header` and `extract` read it. They
check everything, because a file may be cut short or made by a stranger.

A weight p is stored as the byte 255 √p. The error is 0.004 at most and less where p is small, so that 0.0001 still
differs from 0. Patterns are causal, so only key ≤ query is stored, row by row. A probe of more than `SMALL` tokens is
stored twice: first reduced to `SMALL` rows or fewer, so that a picture of all heads loads quickly, then whole.
"""

import io
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minitx.heads.snapshot_header import checked_header
from minitx.system.files import remove_drafts, step_name, write_atomically
from minitx.system.files import steps_in as steps_in  # for the tab, which imports no other module

MAGIC = b"minitx attention 1\n"
FOLDER = "attention"
SUFFIX = ".heads"
SMALL = 64
"""Tokens up to which a pattern is stored only once."""
MAX_HEADER_BYTES = 2**24
"""A file that declares more is refused before memory is taken."""

Floats = NDArray[np.floating[Any]]
Levels = NDArray[np.uint8]


class SnapshotError(Exception):
    """A snapshot that cannot be read. The message is one sentence."""


class PlacedLink(NamedTuple):
    """A link in tokens, such as from a pronoun to its noun: from `queries` to `keys`, which are all earlier."""

    name: str
    queries: range
    keys: range

    @property
    def distance(self) -> int:
        """Tokens from the first query back to the last key."""
        return self.queries.start - self.keys.stop + 1


@dataclass(frozen=True)
class ShownProbe:
    """A text and the patterns of all heads on it."""

    text: str
    tokens: Sequence[str]
    """A label for every token."""
    patterns: Floats
    """(layer, head, query, key)"""
    links: Sequence[PlacedLink] = ()


# Writing


def encode(
    step: int,
    probes: Sequence[ShownProbe],
    scores: Mapping[str, Floats] = {},
    chance: Mapping[str, float] = {},
    roles: Sequence[Sequence[str]] = (),
) -> bytes:
    """The bytes of a snapshot.

    `scores` are arrays (layer, head) by name, importance among them. `chance` holds the score of uniform attention.
    `roles` (layer, head) are names such as "previous token" or "unclassified". Raises ValueError if shapes disagree.
    """
    layers, heads = probes[0].patterns.shape[:2]
    for probe in probes:
        seq = len(probe.tokens)
        if probe.patterns.shape != (layers, heads, seq, seq) or seq == 0:
            raise ValueError(f"patterns {probe.patterns.shape} are not ({layers}, {heads}, {seq}, {seq})")
    for name, values in scores.items():
        if values.shape != (layers, heads):
            raise ValueError(f"score {name} {values.shape} is not ({layers}, {heads})")
    header = {
        "step": step,
        "written": round(time.time(), 3),
        "layers": layers,
        "heads": heads,
        "scores": {name: [_number(value) for value in values.ravel()] for name, values in scores.items()},
        "chance": {name: _number(value) for name, value in chance.items()},
        "roles": [role for layer in roles for role in layer],
        "probes": [
            {
                "text": _unicode(probe.text),
                "tokens": [_unicode(token) for token in probe.tokens],
                "links": [
                    {"name": name, "query": [q.start, q.stop], "key": [k.start, k.stop]} for name, q, k in probe.links
                ],
            }
            for probe in probes
        ],
    }
    pieces = []
    for probe in probes:
        levels = encode_weights(probe.patterns)  # (layer, head, query, key)
        sizes = [reduce(levels), levels] if len(probe.tokens) > SMALL else [levels]
        pieces += [pack(part).tobytes() for part in sizes]
    return _assemble(header, pieces)


def write(run: Path, step: int, content: bytes) -> None:
    """Put a snapshot into a run folder. A reader sees all of it or nothing."""
    file = path(run, step)
    file.parent.mkdir(exist_ok=True)
    write_atomically(file, content)


def forget_after(run: Path, step: int) -> None:
    """Remove the snapshots after `step`, which a resumed run writes again, and drafts of killed processes."""
    remove_drafts(run / FOLDER)
    for later in steps(run):
        if later > step:
            path(run, later).unlink(missing_ok=True)


def encode_weights(weights: Floats) -> Levels:
    """Weights 0 to 1 → bytes 255 √p; NaN becomes 0."""
    levels = np.sqrt(weights, dtype=np.float32)
    levels *= 255
    levels += 0.5
    return np.clip(np.nan_to_num(levels), 0, 255).astype(np.uint8)


def pack(levels: Levels) -> Levels:
    """(…, query, key) → (…, pair): the entries up to the diagonal, row by row."""
    seq = levels.shape[-1]
    return np.take(levels.reshape(*levels.shape[:-2], seq * seq), _triangle(seq), axis=-1)


def reduce(levels: Levels) -> Levels:
    """(…, seq, seq) → (…, side, side): the largest entry of every square block."""
    starts = block_starts(levels.shape[-1])
    return np.maximum.reduceat(np.maximum.reduceat(levels, starts, axis=-1), starts, axis=-2)


def block_starts(seq: int) -> range:
    """The first token of every block that shares a row of the reduced pattern; blocks of 1 up to `SMALL` tokens."""
    return range(0, seq, -(-seq // SMALL))


def pairs(seq: int) -> int:
    """Entries of a causal pattern."""
    return seq * (seq + 1) // 2


@lru_cache(maxsize=16)
def _triangle(seq: int) -> NDArray[np.intp]:
    return np.flatnonzero(np.tri(seq, dtype=bool))


def _number(value: Any) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None


def _unicode(text: str) -> str:
    """`text` without lone surrogates, which JSON could hold but UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _assemble(header: Mapping[str, Any], pieces: Iterable[bytes]) -> bytes:
    text = json.dumps(header, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode("utf-8")
    return b"".join([MAGIC, len(text).to_bytes(4, "little"), text, *pieces])


# Reading


def steps(run: Path) -> list[int]:
    """The steps that a run folder has snapshots of, in order."""
    return steps_in((file.name for file in (run / FOLDER).glob(f"*{SUFFIX}")), SUFFIX)


def path(run: Path, step: int) -> Path:
    """Where the snapshot of `step` lies."""
    return run / FOLDER / f"{step_name(step)}{SUFFIX}"


def read_header(file: BinaryIO) -> dict[str, Any]:
    """The checked header of a snapshot; leaves `file` at the patterns. Raises SnapshotError."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    start = file.read(len(MAGIC) + 4)
    if not start.startswith(MAGIC):
        raise SnapshotError("This is not a snapshot that this version of minitx reads.")
    length = int.from_bytes(start[len(MAGIC) :], "little")
    if length > MAX_HEADER_BYTES:
        raise SnapshotError("This snapshot declares more than a snapshot holds.")
    if len(start) < len(MAGIC) + 4 or length > size - len(start):
        raise SnapshotError("This snapshot is cut short.")
    try:
        header = checked_header(json.loads(file.read(length).decode("utf-8")))
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        reason = f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)
        raise SnapshotError(f"The header of this snapshot is damaged ({reason}).") from error
    missing = sum(_size(probe, header) for probe in header["probes"]) - (size - file.tell())
    if missing:
        raise SnapshotError(f"This snapshot is {'cut short' if missing > 0 else 'longer than it declares'}.")
    return header


def extract(file: BinaryIO, probe: int, heads: Sequence[int] = ()) -> bytes:
    """A snapshot with one probe and, if that is long, the whole patterns of `heads` only.

    `heads` count through the layers: layer * heads + head. Heads that the file lacks are left out. Raises
    SnapshotError, also if the file has no probe of that number.
    """
    header = read_header(file)
    if not 0 <= probe < len(header["probes"]):
        raise SnapshotError(f"This snapshot has no probe {probe}.")
    for skipped in header["probes"][:probe]:
        file.seek(_size(skipped, header), io.SEEK_CUR)
    chosen = dict(header["probes"][probe])
    seq, count = len(chosen["tokens"]), header["layers"] * header["heads"]
    pieces = [file.read(count * pairs(len(block_starts(seq))))]
    if seq > SMALL:
        stored = chosen.get("whole", list(range(count)))
        chosen["whole"] = sorted({*heads} & {*stored})
        start = file.tell()
        for head in chosen["whole"]:
            file.seek(start + stored.index(head) * pairs(seq))
            pieces.append(file.read(pairs(seq)))
    return _assemble({**header, "probes": [chosen]}, pieces)


def _size(probe: Mapping[str, Any], header: Mapping[str, Any]) -> int:
    """Bytes of a probe's patterns."""
    seq, count = len(probe["tokens"]), header["layers"] * header["heads"]
    whole = len(probe.get("whole", range(count))) if seq > SMALL else 0
    return count * pairs(len(block_starts(seq))) + whole * pairs(seq)
