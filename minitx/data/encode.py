"""Chunks of text → token files, on several threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from minitx.data.spool import Chunk
from minitx.data.token_files import Tokens, TokenWriter
from minitx.data.tokenizer import Ids, Tokenizer

BATCH = 1 << 20  # bytes that a thread encodes at once
SAMPLE = 4 << 20  # bytes of training text that a tokenizer is trained on, spread evenly
Batch = list[tuple[str, Chunk]]  # each under its split


def _sample(chunks: Iterator[Chunk], total: int) -> Iterator[Chunk]:
    """About `SAMPLE` of `total` bytes, spread evenly over the chunks."""
    seen = taken = 0
    for chunk in chunks:
        if taken <= seen * min(1.0, SAMPLE / total):
            taken += len(chunk.data)
            yield chunk
        seen += len(chunk.data)


def _encode(
    folder: Path,
    chunks: Iterator[tuple[str, Chunk]],
    tokenizer: Tokenizer,
    workers: int,
    advance: Callable[[int], None],
) -> dict[str, int]:
    """Write train.bin and val.bin; returns bytes and documents of each split."""
    writers = {split: TokenWriter(folder / f"{split}.bin", tokenizer.vocab_size) for split in ("train", "val")}
    counts = {f"{split}_{what}": 0 for split in writers for what in ("bytes", "documents")}
    end = np.array([tokenizer.end_of_document], np.int32)
    try:
        for writer in writers.values():
            writer.write(end)
        for batch, encoded in _encoded(_batches(chunks), tokenizer, workers):
            tokens: dict[str, list[Tokens]] = {split: [] for split in writers}
            for (split, chunk), ids in zip(batch, encoded, strict=True):
                tokens[split] += [ids, end] if chunk.last else [ids]
                counts[f"{split}_bytes"] += len(chunk.data)
                counts[f"{split}_documents"] += chunk.last
                advance(len(chunk.data))
            for split, arrays in tokens.items():
                if arrays:
                    writers[split].write(np.concatenate(arrays))
    finally:
        for writer in writers.values():
            writer.close()
    return counts


def _encoded(batches: Iterator[Batch], tokenizer: Tokenizer, workers: int) -> Iterator[tuple[Batch, list[Ids]]]:
    """Each batch with the tokens of its chunks, in order. Threads encode ahead, outside Python's lock, while the caller
    writes and the next batches are read; with one worker nothing runs beside."""

    def encode(batch: Batch) -> list[Ids]:
        return tokenizer.encode_batch([chunk.data for _, chunk in batch])

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


def _batches(chunks: Iterator[tuple[str, Chunk]]) -> Iterator[Batch]:
    batch: Batch = []
    size = 0
    for item in chunks:
        batch.append(item)
        size += len(item[1].data) + 64
        if size >= BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
