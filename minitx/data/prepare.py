"""Documents → token files: split into training and validation, a tokenizer trained, everything encoded, once.

`prepare` keeps the result in a cache folder, keyed by everything it depends on. It is built beside its place and
renamed, so that an interrupted or a second run at the same time spoils nothing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minitx.config.settings import DataConfig, TokenizerConfig, UserError, require
from minitx.data import sources
from minitx.data.batches import require_window
from minitx.data.spool import Chunk, Spool, new_chunk
from minitx.data.token_files import Tokens, TokenWriter, read_tokens, sync
from minitx.data.tokenizer import Ids, Tokenizer
from minitx.system.files import checksum

FORMAT = 3  # of the prepared folder; a new one leaves older folders unused
FILES = ("tokenizer.model", "train.bin", "val.bin")
BATCH = 1 << 20  # bytes that a thread encodes at once
SAMPLE = 4 << 20  # bytes of training text that a tokenizer is trained on, spread evenly
LEFTOVER_AGE = 24 * 3600  # seconds after which an unfinished folder is taken for a dead run's
MANY_DOCUMENTS = 100  # from here on, auto holds out whole documents

Batch = list[tuple[str, Chunk]]  # each under its split


@dataclass(frozen=True)
class Prepared:
    """A tokenized corpus. The tokens of a split start with end of document, which also follows each document."""

    folder: Path
    tokenizer: Tokenizer
    train: Tokens
    val: Tokens
    train_bytes: int
    """UTF-8 bytes of the training text, for bits per byte."""
    val_bytes: int
    train_documents: int
    val_documents: int
    fingerprint: str
    """SHA-256 over the text of every document, in hexadecimal."""

    def describe(self) -> dict[str, int | str]:
        """What the corpus holds, in plain numbers."""
        numbers = {
            f"{split}_{what}": getattr(self, f"{split}_{what}")
            for split in ("train", "val")
            for what in ("documents", "bytes")
        }
        return {
            "fingerprint": self.fingerprint,
            "prepared": self.folder.name,
            "tokenizer": self.tokenizer.digest,
            "vocabulary": self.tokenizer.vocab_size,
            "train_tokens": len(self.train),
            "val_tokens": len(self.val),
            **numbers,
        }


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


def prepare(
    data: DataConfig,
    tokenizer: TokenizerConfig,
    seed: int,
    *,
    progress: bool,
    tokenizer_model: Tokenizer | None = None,
    kept: object = None,
    workers: int | None = None,
) -> Prepared:
    """Read, split and tokenize the text that `data` names, or take what an earlier call left in the cache.

    `seed` decides which documents are held out, unless `data.seed` does. `tokenizer_model` is used instead of training
    one. `kept` names the folder of the cache that a resumed run used: a data set of the Hub is taken from there
    without asking the Hub, whatever it has by now. `workers` threads encode (all cores by default). Raises `UserError`
    for everything that is wrong with the source.
    """
    require(
        data.val_split is None or not (data.source in ("python-docs", "repeats") or sources.is_path(data.source)),
        f"data.val_split is {data.val_split}, but only a Hub data set has splits: leave it out.",
    )
    seed = seed if data.seed is None else data.seed
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minitx"
    is_hub = data.source != "python-docs" and not sources.is_path(data.source)
    if is_hub and isinstance(kept, str) and re.fullmatch("[0-9a-f]{32}", kept):  # never a path that climbs out
        cached = _load(root / kept)
        if cached and (tokenizer_model is None or cached.tokenizer.digest == tokenizer_model.digest):
            return cached
    inputs = {
        "format": FORMAT,
        "sentencepiece": importlib.metadata.version("sentencepiece"),
        "data": {**dataclasses.asdict(data), "seed": None},  # named below
        "source": sources.identity(data),
        "seed": seed,
    }
    size = None if tokenizer.type == "char" else tokenizer.vocab_size
    trained = root / _key({**inputs, "tokenizer": [tokenizer.type, size]})
    if tokenizer_model is None:
        folder = trained
    else:
        folder = root / _key({**inputs, "tokenizer": tokenizer_model.digest})
        if (cached := _load(trained)) and cached.tokenizer.digest == tokenizer_model.digest:
            return cached
    if cached := _load(folder):
        return cached
    try:
        root.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(root)
        unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=root))
    except OSError as error:
        raise UserError(
            f"The cache folder {root} cannot be written ({error.strerror}): set XDG_CACHE_HOME to another folder."
        ) from error
    try:
        _build(unfinished, data, tokenizer, seed, progress, tokenizer_model, workers or len(_cores()))
        return _move(unfinished, folder)
    except OSError as error:
        raise UserError(
            f"The cache folder {root} cannot be written ({error.strerror or error}): make room there, or set "
            "XDG_CACHE_HOME to another folder."
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def check_length(prepared: Prepared, context_length: int) -> None:
    """Raise `UserError` where the training text is shorter than one window, or validation has nothing to predict."""
    require_window(prepared.train, context_length)
    require(
        len(prepared.val) >= 2,
        f"The validation text has {len(prepared.val)} tokens, but at least 2 are needed: raise data.val_fraction.",
    )


def _build(
    folder: Path,
    data: DataConfig,
    config: TokenizerConfig,
    seed: int,
    progress: bool,
    tokenizer: Tokenizer | None,
    workers: int,
) -> None:
    """Fill `folder` with tokenizer.model, train.bin, val.bin and meta.json."""
    spools: dict[str, Spool] = {}
    for split in ["train"] if data.val_split is None else ["train", "val"]:
        name = data.split if split == "train" else str(data.val_split)
        with _bar(f"reading {split}" if data.val_split else "reading", None, progress) as advance:
            spools[split] = Spool(folder / f"{split}.spool", sources.read(data, name), advance)
        require(bool(spools[split].documents), f"data.source {data.source} holds no text: name another.")

    def chunks() -> Iterator[tuple[str, Chunk]]:
        if data.val_split is None:
            return divide(spools["train"], data, seed)
        return ((split, chunk) for split, spool in spools.items() for chunk in spool)

    total = sum(spool.bytes for spool in spools.values())
    if tokenizer is None:
        training = (chunk for split, chunk in chunks() if split == "train")
        sampled = training if config.type == "char" else _sample(training, total)
        tokenizer = Tokenizer.train((chunk.data.decode("utf-8") for chunk in sampled), config)
    tokenizer.save(folder / "tokenizer.model")
    with _bar("encoding", total, progress) as advance:
        counts = _encode(folder, chunks(), tokenizer, workers, advance)
    digest = hashlib.sha256("".join(spool.fingerprint for spool in spools.values()).encode()).hexdigest()
    fingerprint = spools["train"].fingerprint if len(spools) == 1 else digest
    for spool in spools.values():
        spool.path.unlink()
    with (folder / "meta.json").open("w", encoding="utf-8") as file:
        checksums = {name: checksum(folder / name) for name in FILES}
        json.dump({**counts, "fingerprint": fingerprint, "checksums": checksums}, file, indent=1)
        sync(file)


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


def _key(inputs: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


def _load(folder: Path) -> Prepared | None:
    """What `folder` holds, or None where it is missing or damaged."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        if meta.pop("checksums") != {name: checksum(folder / name) for name in FILES}:
            return None
        tokenizer = Tokenizer.load(folder / "tokenizer.model")
        return Prepared(
            folder, tokenizer, train=read_tokens(folder / "train.bin"), val=read_tokens(folder / "val.bin"), **meta
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError, UserError):
        return None


def _move(unfinished: Path, folder: Path) -> Prepared:
    """Give a filled folder its name in one step. Another process may have been first: then its folder is used."""
    for _ in range(3):
        with contextlib.suppress(OSError):
            unfinished.rename(folder)
        if prepared := _load(folder):
            return prepared
        shutil.rmtree(folder, ignore_errors=True)  # damaged, and in the way
    raise UserError(f"The prepared data cannot be put into {folder}: remove that folder.")


def _remove_leftovers(root: Path) -> None:
    for folder in root.glob("unfinished-*"):
        with contextlib.suppress(OSError):
            newest = max(path.stat().st_mtime for path in [folder, *folder.iterdir()])
            if time.time() - newest > LEFTOVER_AGE:
                shutil.rmtree(folder, ignore_errors=True)


def _cores() -> range | set[int]:
    return os.sched_getaffinity(0) if sys.platform == "linux" else range(os.cpu_count() or 1)


@contextlib.contextmanager
def _bar(label: str, total: int | None, progress: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar over bytes, drawn only where a person watches; yields what advances it."""
    if not (progress and sys.stderr.isatty()):
        yield lambda count: None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc=label, unit="B", unit_scale=True, leave=False) as bar:

        def advance(count: int) -> None:
            bar.update(count)

        yield advance
