"""Pieces of text → token files, on several threads."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from minitx.data.sources import Piece
from minitx.data.spool import Advance
from minitx.data.token_files import Tokens, TokenWriter
from minitx.data.tokenizer import Ids, Tokenizer

BATCH_CHARACTERS = 1 << 20  # encoded at once by a thread
SAMPLE_BYTES = 4 << 20  # of training text, for training a tokenizer
Batch = list[tuple[str, Piece]]  # pieces, with the names of their splits


def sample(pieces: Iterator[Piece], total: int) -> Iterator[Piece]:
    """The pieces to train a tokenizer on: about `SAMPLE_BYTES` of a text of `total` bytes, spread evenly."""
    passed = taken = 0
    for piece in pieces:
        size = len(piece.text.encode())
        if taken <= passed * min(1.0, SAMPLE_BYTES / total):
            taken += size
            yield piece
        passed += size


def write_token_files(
    folder: Path, pieces: Iterator[tuple[str, Piece]], tokenizer: Tokenizer, workers: int, advance: Advance
) -> dict[str, int]:
    """Write train.npy and val.npy with `workers` threads; returns bytes and documents of both splits."""
    end = np.array([tokenizer.end_of_document], np.int32)
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(closing(TokenWriter(folder / f"{split}.npy", tokenizer.vocab_size)))
            for split in ("train", "val")
        }
        counts = {f"{split}_{what}": 0 for split in writers for what in ("bytes", "documents")}
        for writer in writers.values():
            writer.write(end)
        for batch, encoded in _encode_ahead(_in_batches(pieces), tokenizer, workers):
            tokens: dict[str, list[Tokens]] = {split: [] for split in writers}
            for (split, piece), ids in zip(batch, encoded, strict=True):
                tokens[split] += [ids, end] if piece.last else [ids]
                size = len(piece.text.encode())
                counts[f"{split}_bytes"] += size
                counts[f"{split}_documents"] += piece.last
                advance(size)
            for split, arrays in tokens.items():
                if arrays:
                    writers[split].write(np.concatenate(arrays))
    return counts


def _encode_ahead(batches: Iterator[Batch], tokenizer: Tokenizer, workers: int) -> Iterator[tuple[Batch, list[Ids]]]:
    """Yield batches, in order, with the tokens of their pieces. Threads encode ahead if there are several `workers`."""

    def encode(batch: Batch) -> list[Ids]:
        return tokenizer.encode_batch([piece.text.encode() for _, piece in batch])

    if workers == 1:
        yield from ((batch, encode(batch)) for batch in batches)
        return
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[tuple[Batch, Future[list[Ids]]]] = deque()
        for batch in batches:
            ahead.append((batch, pool.submit(encode, batch)))
            if len(ahead) > 2 * workers:
                first, tokens = ahead.popleft()
                yield first, tokens.result()
        yield from ((batch, tokens.result()) for batch, tokens in ahead)


def _in_batches(pieces: Iterator[tuple[str, Piece]]) -> Iterator[Batch]:
    batch: Batch = []
    size = 0
    for split, piece in pieces:
        batch.append((split, piece))
        size += len(piece.text) + 64  # short documents have a cost too
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    yield batch
