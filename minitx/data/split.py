"""Which text trains and which validates."""

import hashlib
from collections.abc import Collection, Iterator

from minitx.config import DataConfig
from minitx.data.sources import Piece
from minitx.data.spool import Spool
from minitx.system.errors import require

MANY_DOCUMENTS = 100  # from which on data.split_by auto holds out whole documents


def held_out(characters: list[int], fraction: float, seed: int, only_train: Collection[int] = ()) -> set[int]:
    """Indices of the documents that validate, given the characters of all; at least one, and never all.

    They come in the order of a hash of seed and index, as many as fit into `fraction` of the text. Those that
    `only_train` count for nothing.
    """
    may = [document for document in range(len(characters)) if document not in only_train]

    def rank(document: int) -> bytes:
        return hashlib.blake2b(f"{seed} {document}".encode(), digest_size=8).digest()

    room = fraction * sum(characters[document] for document in may)
    chosen: set[int] = set()
    for document in sorted(may, key=rank):
        if characters[document] <= room and len(chosen) < len(characters) - 1:
            room -= characters[document]
            chosen.add(document)
    return chosen or {min(may, key=lambda document: characters[document])}


def divide(spool: Spool, data: DataConfig, seed: int) -> Iterator[tuple[str, Piece]]:
    """The pieces of a spool, each with its split: "train" or "val"."""
    if data.split_by == "document" or (data.split_by == "auto" and len(spool.documents) >= MANY_DOCUMENTS):
        remedy = "leave data.streaming out" if data.streaming else "set data.split_by to position"
        require(len(spool.documents) >= 2, f"Held out are whole documents, but the text is one document: {remedy}.")
        validates = held_out(spool.documents, data.val_fraction, seed, spool.only_train)
        document = 0
        for piece in spool:
            yield ("val" if document in validates else "train"), piece
            document += piece.last
        return
    characters = sum(spool.documents)
    left = int((1 - data.val_fraction) * characters)  # characters that still go to training
    require(
        0 < left < characters,
        f"The text has {characters} characters, too few to hold out {data.val_fraction} of them: use more text.",
    )
    for piece in spool:
        size = len(piece.text)
        if 0 < left <= size:  # training text ends in this piece
            yield "train", Piece(piece.text[:left], True)
            if left < size:
                yield "val", Piece(piece.text[left:], piece.last)
        else:
            yield ("train" if left > 0 else "val"), piece
        left -= size
