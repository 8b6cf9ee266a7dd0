"""Snapshots of the heads: what every head attends to on the probes at one step, in a small file for the Attention tab.

    runs/NAME/attention/step-000100.heads = MAGIC, length of the header, its checksum, header (JSON), patterns

`encode` makes a snapshot of numpy arrays and `write` puts it into a run. `open_snapshot` and `extract` read it. They
check all that they read, because a file may be damaged, swapped or made by a stranger. The header names the step and
the run, and holds a checksum of every part that is read alone: a probe's small patterns, a head's whole pattern.

Patterns are bytes as `packing` makes them. A probe of more than `SMALL` tokens is stored twice: first reduced to
`SMALL` rows or fewer, so that a picture of all heads loads quickly, then whole.
"""

import contextlib
import io
import json
import math
import operator
import os
import re
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from zlib import crc32

from minitx.heads.packing import SMALL, Floats, block_starts, encode_weights, pack, pairs, reduce
from minitx.heads.snapshot_header import checked_header
from minitx.system.errors import UserError, require
from minitx.system.fields import parse_json
from minitx.system.files import (
    open_regular,
    read_json,
    reading,
    remove,
    remove_drafts,
    step_name,
    steps_in,
    write_atomically,
)

MAGIC, SECOND, OLDER = (b"minitx attention %d\n" % version for version in (3, 2, 1))
"""The second format had less in its header, and the older one no checksums."""
FOLDER = "attention"
SUFFIX = ".heads"
MAX_HEADER_BYTES, MAX_BYTES, MAX_EXTRACT_BYTES = 2**24, 2**30, 2**28
"""A larger header, file or extract is refused before memory is taken."""


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
    words: Sequence[int] = ()
    """The first token of every word."""
    dropped: int = 0
    """Tokens that the context had no room for."""
    predictions: Mapping[str, Any] | None = None
    """As `predictions.predict_next` returns them."""
    scores: Mapping[str, Floats] = field(default_factory=dict)
    """Name → (layer, head), measured on this text alone."""
    chance: Mapping[str, float] = field(default_factory=dict)
    roles: Sequence[Sequence[str]] = ()


# Writing


def encode(
    step: int,
    probes: Sequence[ShownProbe],
    scores: Mapping[str, Floats] = {},
    chance: Mapping[str, float] = {},
    roles: Sequence[Sequence[str]] = (),
    run: str = "",
    scored_on: str = "",
) -> bytes:
    """The bytes of a snapshot.

    `scores` are arrays (layer, head) by name, importance among them. `chance` holds the score of uniform attention.
    `roles` (layer, head) are names such as "previous token" or "unclassified". All three are of the text `scored_on`,
    such as "validation text". `run` is the `run_id`. Raises ValueError if shapes disagree.
    """
    layers, heads = probes[0].patterns.shape[:2]
    for probe in probes:
        seq = len(probe.tokens)
        if probe.patterns.shape != (layers, heads, seq, seq) or seq == 0:
            raise ValueError(f"patterns {probe.patterns.shape} are not ({layers}, {heads}, {seq}, {seq})")
    for name, values in [pair for scored in (scores, *(probe.scores for probe in probes)) for pair in scored.items()]:
        if values.shape != (layers, heads):
            raise ValueError(f"score {name} {values.shape} is not ({layers}, {heads})")
    entries: list[dict[str, Any]] = []
    pieces = []
    for probe in probes:
        levels = encode_weights(probe.patterns)  # (layer, head, query, key)
        is_long = len(probe.tokens) > SMALL
        parts = [pack(reduce(levels) if is_long else levels).tobytes()]
        if is_long:
            parts += [head.tobytes() for head in pack(levels).reshape(layers * heads, -1)]
        links = [{"name": name, "query": [q.start, q.stop], "key": [k.start, k.stop]} for name, q, k in probe.links]
        checksums = [crc32(part) for part in parts]
        entries.append(
            {
                "text": probe.text,
                "tokens": list(probe.tokens),
                "links": links,
                "checksums": checksums,
                "words": list(probe.words),
                "dropped": probe.dropped,
                "predictions": probe.predictions,
                **_scored(probe.scores, probe.chance, probe.roles, digits=4),
            }
        )
        pieces += parts
    header = {
        "step": step,
        "run": run,
        "written": round(time.time(), 3),
        "layers": layers,
        "heads": heads,
        "scored_on": scored_on,
        **_scored(scores, chance, roles, digits=6),
        "probes": entries,
    }
    return _assemble(header, pieces)


def write(run: Path, step: int, content: bytes) -> None:
    """Put a snapshot into a run folder. A reader sees all of it or nothing."""
    file = path(run, step)
    file.parent.mkdir(exist_ok=True)
    write_atomically(file, content)


def own_folder(folder: str | os.PathLike[str]) -> Path:
    """A folder for snapshots alone; raises UserError for what is none, and for a trained run."""
    is_path = isinstance(folder, str | os.PathLike) and bool(str(folder))
    require(is_path, f"{folder!r} is no folder: give the path of one.")
    require(not Path(folder).is_file(), f"{folder} is a file: name a folder.")
    is_free = not (Path(folder) / "data.json").exists()
    require(is_free, f"{folder} is a trained run, which has its own snapshots: name another folder beside it.")
    return Path(folder)


def whole_step(step: Any) -> int:
    """`step` as a Python int; raises UserError for what is no whole number from 0 on."""
    require(hasattr(step, "__index__") and step >= 0, f"step is {step!r}: give a whole number from 0 on.")
    return operator.index(step)


def forget_after(run: Path, step: int) -> None:
    """Remove the snapshots after `step`, which a resumed run writes again, and drafts of killed processes."""
    require(not (run / FOLDER).is_symlink(), f"{run / FOLDER} is a link: put a folder in its place.")
    remove_drafts(run / FOLDER, rf"step-[0-9]+{re.escape(SUFFIX)}(?:-old)?")
    for later in steps(run):
        if later > step:
            remove(path(run, later))


def _scored(
    scores: Mapping[str, Floats], chance: Mapping[str, float], roles: Sequence[Sequence[str]], digits: int
) -> dict[str, Any]:
    """Scores as plain data: a list in place of (layer, head), and None in place of NaN."""

    def number(value: Any) -> float | None:
        return round(float(value), digits) if math.isfinite(value) else None

    return {
        "scores": {name: [number(value) for value in values.ravel()] for name, values in scores.items()},
        "chance": {name: number(value) for name, value in chance.items()},
        "roles": [role for layer in roles for role in layer],
    }


def _assemble(header: Mapping[str, Any], pieces: Iterable[bytes]) -> bytes:
    text = json.dumps(header, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    content = text.encode("utf-8", "replace")  # lone surrogates are in no UTF-8
    return b"".join([MAGIC, struct.pack("<II", len(content), crc32(content)), content, *pieces])


# Reading


def steps(run: Path) -> list[int]:
    """The steps that a run folder has snapshots of, in order."""
    return steps_in((file.name for file in (run / FOLDER).glob(f"*{SUFFIX}")), SUFFIX)


def path(run: Path, step: int) -> Path:
    """Where the snapshot of `step` lies."""
    return run / FOLDER / f"{step_name(step)}{SUFFIX}"


def run_id(run: Path) -> str | None:
    """What tells the run in this folder from every other; "" in a run of an older version, None if it is unknown."""
    try:
        return str(read_json(run / "data.json").get("id", ""))
    except UserError:
        return None


@contextlib.contextmanager
def open_snapshot(run: Path, step: int) -> Iterator[tuple[BinaryIO, dict[str, Any]]]:
    """The snapshot of a step, at its patterns, and its checked header; a UserError inside, too, names the step."""
    file = path(run, step)
    try:
        with open_regular(file, MAX_BYTES) as opened, reading(file):
            header = read_header(opened)
            require(header["step"] == step, f"This snapshot is of step {header['step']}: it was renamed.")
            known = run_id(run)
            is_ours = known is None or header["run"] in (known, None)
            require(is_ours, "This snapshot is of another run: it was copied here.")
            yield opened, header
    except UserError as error:
        raise UserError(f"Step {step}: {error}".replace(f"{file.parent}{os.sep}", "")) from error


def read_header(file: BinaryIO) -> dict[str, Any]:
    """The checked header of a snapshot; leaves `file` at the patterns. Raises UserError."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    magic = file.read(len(MAGIC))
    require(magic in (MAGIC, SECOND, OLDER), "This is not a snapshot that this version of minitx reads.")
    has_checksums = magic != OLDER
    length = int.from_bytes(file.read(4), "little")
    checksum = int.from_bytes(file.read(4), "little") if has_checksums else None
    require(length <= MAX_HEADER_BYTES, "This snapshot declares more than a snapshot holds.")
    content = file.read(length)
    require(len(content) == length > 0, "This snapshot is cut short.")
    is_whole = checksum is None or crc32(content) == checksum
    require(is_whole, "The header of this snapshot is damaged: it does not fit its checksum.")
    header = checked_header(parse_json(content, "The header of this snapshot"), has_checksums=has_checksums)
    sizes = [part_sizes(probe, header) for probe in header["probes"]]
    missing = sum(map(sum, sizes)) - (size - file.tell())
    require(missing <= 0, "This snapshot is cut short.")
    require(missing == 0, "This snapshot is longer than it declares.")
    if has_checksums:
        have_all = [len(probe["checksums"]) for probe in header["probes"]] == [len(parts) for parts in sizes]
        require(have_all, "The header of this snapshot is damaged: it must have one checksum for every part.")
    return header


def extract(file: BinaryIO, header: Mapping[str, Any], probe: int, heads: Sequence[int] = ()) -> bytes:
    """A snapshot with one probe and, if that is long, the whole patterns of `heads` only.

    `file` is at its patterns, as `read_header` leaves it. `heads` count through the layers: layer * heads + head. Heads
    that the file lacks are left out. Raises UserError, also if the file has no probe of that number.
    """
    require(0 <= probe < len(header["probes"]), f"This snapshot has no probe {probe}.")
    start = file.tell() + sum(sum(part_sizes(skipped, header)) for skipped in header["probes"][:probe])
    chosen = dict(header["probes"][probe])
    places, parts = list(accumulate(part_sizes(chosen, header), initial=start)), [0]
    if len(chosen["tokens"]) > SMALL:
        stored = chosen.get("whole", list(range(header["layers"] * header["heads"])))
        chosen["whole"] = sorted({*heads} & {*stored})
        parts += [1 + stored.index(head) for head in chosen["whole"]]
    wanted = sum(places[part + 1] - places[part] for part in parts)
    require(wanted <= MAX_EXTRACT_BYTES, f"This would take {wanted:,} bytes of memory: ask for fewer heads.")
    pieces = []
    for part in parts:
        file.seek(places[part])
        pieces.append(file.read(places[part + 1] - places[part]))
    checksums = [crc32(piece) for piece in pieces]
    is_whole = "checksums" not in chosen or checksums == [chosen["checksums"][part] for part in parts]
    require(is_whole, "This snapshot is damaged: its patterns do not fit their checksums.")
    return _assemble({**header, "probes": [{**chosen, "checksums": checksums}]}, pieces)


def part_sizes(probe: Mapping[str, Any], header: Mapping[str, Any]) -> list[int]:
    """Bytes of the parts of a probe's patterns: small ones of all heads, then the whole ones that are stored."""
    seq, count = len(probe["tokens"]), header["layers"] * header["heads"]
    whole = len(probe.get("whole", range(count))) if seq > SMALL else 0
    return [count * pairs(len(block_starts(seq))), *[pairs(seq)] * whole]
