"""Which documents train and which validate."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from minitx.config import DataConfig
from minitx.data.spool import Chunk, Spool, new_chunk
from minitx.system.errors import require

MANY_DOCUMENTS = 100  # from here on, auto holds out whole documents


def held_out(characters: list[int], fraction: float, seed: int) -> set[int]:
    """Which documents validate, given how many characters each has: in the order of a hash of seed and index, as many
    as fit into `fraction` of the text; each side gets at least one document."""

    def place(document: int) -> bytes:
        return hashlib.blake2b(f"{seed} {document}".encode(), digest_size=8).digest()

    room = fraction * sum(characters)
    chosen: set[int] = set()
    for document in sorted(range(len(characters)), key=place):
        if characters[document] <= room and len(chosen) < len(characters) - 1:
            room -= characters[document]
            chosen.add(document)
    return chosen or {characters.index(min(characters))}


def divide(spool: Spool, data: DataConfig, seed: int) -> Iterator[tuple[str, Chunk]]:
    """The chunks of a spool, each under the split it belongs to: "train" or "val"."""
    if data.split_by == "document" or (data.split_by == "auto" and len(spool.documents) >= MANY_DOCUMENTS):
        require(
            len(spool.documents) >= 2,
            "data.split_by is document, but the text is one document: set it to position.",
        )
        validates = held_out(spool.documents, data.val_fraction, seed)
        document = 0
        for chunk in spool:
            yield ("val" if document in validates else "train"), chunk
            document += chunk.last
        return
    left = int((1 - data.val_fraction) * spool.characters)  # characters that still go to training
    require(
        0 < left < spool.characters,
        f"The text has {spool.characters} characters, too few to hold out {data.val_fraction} of them: use more text.",
    )
    for chunk in spool:
        if 0 < left < chunk.characters:  # the boundary lies inside
            text = chunk.data.decode("utf-8")
            yield "train", new_chunk(text[:left], True)
            yield "val", new_chunk(text[left:], chunk.last)
        elif left == chunk.characters:
            yield "train", chunk._replace(last=True)
        else:
            yield ("train" if left > 0 else "val"), chunk
        left -= chunk.characters
