"""From text to batches: documents are split into training and validation, tokenized into files, mapped, and batched.

`prepare` does the first part once and keeps the result in a cache folder; `Batches` draws training windows in an
order that can be stopped and taken up again exactly; `validation_windows` walks once over a whole split.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import shutil
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from minitx import sources
from minitx.config import DataConfig, TokenizerConfig, UserError, require
from minitx.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

Tokens = np.ndarray[Any, np.dtype[Any]]

FORMAT = 1  # of the prepared folder; a new one leaves older folders unused
HEADER = struct.Struct("<8sII Q")  # magic, version, bytes per token, number of tokens; all little-endian
MAGIC = b"minitx\0T"
CHUNK = 1 << 16  # characters encoded at once, which bounds what a long document needs
BATCH = 1 << 22  # bytes handed to the tokenizer's threads at once
SAMPLE = 4 << 20  # bytes of training text that a tokenizer is trained on, spread evenly
LEFTOVER_AGE = 24 * 3600  # seconds after which an unfinished folder is taken for a dead run's
MANY_DOCUMENTS = 100  # from here on, auto holds out whole documents


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
            "vocabulary": self.tokenizer.vocab_size,
            "train_tokens": len(self.train),
            "val_tokens": len(self.val),
            **numbers,
        }


# --- token files ---


class TokenWriter:
    """Writes a token file piece by piece; `close` puts the number of tokens into its header."""

    def __init__(self, path: Path, vocab_size: int) -> None:
        self.count = 0
        self._dtype = np.dtype("<u2") if vocab_size <= 1 << 16 else np.dtype("<u4")
        self._file = path.open("wb")
        self._file.write(HEADER.pack(MAGIC, FORMAT, self._dtype.itemsize, 0))

    def write(self, tokens: Tokens) -> None:
        """Append `tokens`."""
        self._file.write(tokens.astype(self._dtype).tobytes())
        self.count += len(tokens)

    def close(self) -> None:
        """Finish the file, through to the disk."""
        self._file.seek(0)
        self._file.write(HEADER.pack(MAGIC, FORMAT, self._dtype.itemsize, self.count))
        _sync(self._file)
        self._file.close()


def read_tokens(path: str | Path) -> Tokens:
    """Map a token file into memory. Raises `UserError` where it is missing, damaged or of another version."""
    try:
        with Path(path).open("rb") as file:
            header = file.read(HEADER.size)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise UserError(f"Token file {path} cannot be read ({error.strerror}): prepare the data again.") from error
    fields = HEADER.unpack(header) if len(header) == HEADER.size else (b"", 0, 0, 0)
    magic, version, width, count = fields
    require(magic == MAGIC, f"{path} is not a token file of minitx: prepare the data again.")
    require(
        version == FORMAT and width in (2, 4),
        f"Token file {path} has version {version} and {width} bytes per token, but version {FORMAT} and 2 or 4 bytes "
        "were expected: prepare the data again.",
    )
    require(
        size == HEADER.size + width * count,
        f"Token file {path} holds {size} bytes, but its {count} tokens need {HEADER.size + width * count}: prepare "
        "the data again.",
    )
    return np.memmap(path, dtype=f"<u{width}", mode="r", offset=HEADER.size, shape=(count,))


# --- the text on its way ---


class Chunk(NamedTuple):
    """At most `CHUNK` characters of a document as UTF-8; `last` where the document ends with them."""

    data: bytes
    characters: int
    last: bool


class Spool:
    """A source's text in one file, so that a source is read once however often its text is gone through."""

    RECORD = struct.Struct("<II?")

    def __init__(self, path: Path, pieces: Iterator[sources.Piece], advance: Callable[[int], None]) -> None:
        self.path = path
        self.documents = self.characters = self.bytes = 0
        digest = hashlib.sha256()
        with path.open("wb") as file:
            for chunk in rechunk(pieces):
                file.write(self.RECORD.pack(len(chunk.data), chunk.characters, chunk.last) + chunk.data)
                digest.update(chunk.data + b"\xff" * chunk.last)  # a byte that UTF-8 never has ends a document
                self.documents += chunk.last
                self.characters += chunk.characters
                self.bytes += len(chunk.data)
                advance(len(chunk.data))
        self.fingerprint = digest.hexdigest()

    def __iter__(self) -> Iterator[Chunk]:
        with self.path.open("rb") as file:
            while record := file.read(self.RECORD.size):
                size, characters, last = self.RECORD.unpack(record)
                yield Chunk(file.read(size), characters, last)


def rechunk(pieces: Iterator[sources.Piece], size: int = CHUNK) -> Iterator[Chunk]:
    """Cut documents into chunks of at most `size` characters: after a line break, where no token reaches across, or
    else before a space, or else anywhere, which costs a token or two but never any text."""
    rest = ""
    for piece in pieces:
        rest += piece.text
        start = 0
        while len(rest) - start > size:
            end = rest.rfind("\n", start, start + size) + 1
            if end <= start:
                end = rest.rfind(" ", start + 1, start + size)
            if end <= start:
                end = start + size
            yield _chunk(rest[start:end], False)
            start = end
        rest = rest[start:]
        if piece.last:
            yield _chunk(rest, True)
            rest = ""


def _chunk(text: str, last: bool) -> Chunk:
    try:
        return Chunk(text.encode("utf-8"), len(text), last)
    except UnicodeEncodeError as error:
        raise UserError(
            f"The text holds a lone surrogate (U+{ord(text[error.start]):04X}), which is not valid Unicode: take it "
            "out of the source."
        ) from error


# --- training and validation ---


def held_out(documents: int, fraction: float, seed: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which documents validate: a document's hash with the seed decides, and each side gets at least one."""
    hashes = (hashlib.blake2b(f"{seed} {i}".encode(), digest_size=8).digest() for i in range(documents))
    shares = np.fromiter((int.from_bytes(h, "big") / 2**64 for h in hashes), np.float64, documents)
    chosen = shares < fraction
    chosen[shares.argmin()] = True
    chosen[shares.argmax()] = False
    return chosen


def divide(spool: Spool, data: DataConfig, seed: int) -> Iterator[tuple[str, Chunk]]:
    """The chunks of a spool, each under the split it belongs to: "train" or "val"."""
    if data.split_by == "document" or (data.split_by == "auto" and spool.documents >= MANY_DOCUMENTS):
        require(
            spool.documents >= 2,
            "data.split_by is document, but the text is one document: set it to position.",
        )
        validates = held_out(spool.documents, data.val_fraction, seed)
        document = 0
        for chunk in spool:
            yield ("val" if validates[document] else "train"), chunk
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
            yield "train", _chunk(text[:left], True)
            yield "val", _chunk(text[left:], chunk.last)
        elif left == chunk.characters:
            yield "train", chunk._replace(last=True)
        else:
            yield ("train" if left > 0 else "val"), chunk
        left -= chunk.characters


# --- preparing ---


def prepare(
    data: DataConfig,
    tokenizer: TokenizerConfig,
    seed: int,
    *,
    progress: bool,
    tokenizer_model: Tokenizer | None = None,
    workers: int | None = None,
) -> Prepared:
    """Read, split and tokenize the text that `data` names, or take what an earlier call left in the cache.

    `tokenizer_model` is used instead of training one. `workers` threads encode (all cores by default). Raises
    `UserError` for everything that is wrong with the source.
    """
    require(
        data.val_split is None or not (data.source == "python-docs" or sources.is_path(data.source)),
        f"data.val_split is {data.val_split}, but only a Hub data set has splits: leave it out.",
    )
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minitx"
    inputs = {
        "format": FORMAT,
        "sentencepiece": importlib.metadata.version("sentencepiece"),
        "data": dataclasses.asdict(data),
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
    _require_window(prepared.train, context_length)
    require(
        len(prepared.val) >= 2,
        f"The validation text has {len(prepared.val)} tokens, but at least 2 are needed: raise data.val_fraction.",
    )


def _require_window(tokens: Tokens, context_length: int) -> None:
    require(
        len(tokens) > context_length,
        f"The training text has {len(tokens)} tokens, but model.context_length {context_length} needs at least "
        f"{context_length + 1}: use more text or a shorter context.",
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
        require(spools[split].documents > 0, f"data.source {data.source} holds no text: name another.")

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
        json.dump({**counts, "fingerprint": fingerprint}, file, indent=1)
        _sync(file)


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
        for batch in _batches(chunks):
            encoded = tokenizer.encode_batch([chunk.data for _, chunk in batch], threads=workers)
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


def _batches(chunks: Iterator[tuple[str, Chunk]]) -> Iterator[list[tuple[str, Chunk]]]:
    batch: list[tuple[str, Chunk]] = []
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
        tokenizer = Tokenizer.load(folder / "tokenizer.model")
        return Prepared(
            folder, tokenizer, train=read_tokens(folder / "train.bin"), val=read_tokens(folder / "val.bin"), **meta
        )
    except (OSError, ValueError, TypeError, UserError):
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


def _sync(file: IO[Any]) -> None:
    file.flush()
    os.fsync(file.fileno())


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


# --- batches ---


class Batches:
    """Training windows without replacement, in an order that depends on (seed, epoch) alone.

    An epoch starts at a random phase below `context_length` and goes through the windows from there in random order,
    so that it sees every token from the phase to the last whole window once. A batch may span two epochs.
    """

    def __init__(self, tokens: Tokens, context_length: int, batch_size: int, seed: int) -> None:
        _require_window(tokens, context_length)
        self._tokens, self._context_length, self._batch_size, self._seed = tokens, context_length, batch_size, seed
        self._start_epoch(0)

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets, int64, each (batch, seq); the targets are the inputs one token later."""
        return self.next()

    def next(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets, int64, each (batch, seq); the targets are the inputs one token later."""
        starts: list[int] = []
        while len(starts) < self._batch_size:
            if self._position == len(self._starts):
                self._start_epoch(self._epoch + 1)
            taken = self._starts[self._position : self._position + self._batch_size - len(starts)]
            starts += taken.tolist()
            self._position += len(taken)
        return _windows(self._tokens, starts, self._context_length)

    def state(self) -> dict[str, int]:
        """Where the next batch starts: the epoch, and the windows of it already drawn."""
        return {"epoch": self._epoch, "position": self._position}

    def restore(self, state: dict[str, int]) -> None:
        """Go on from what `state` returned; raises `UserError` where that does not fit these tokens."""
        self._start_epoch(state["epoch"])
        require(
            0 <= state["position"] <= len(self._starts),
            f"Data position {state['position']} lies outside the {len(self._starts)} windows of an epoch: the text or "
            "context_length changed since the checkpoint.",
        )
        self._position = state["position"]

    def _start_epoch(self, epoch: int) -> None:
        random = np.random.default_rng([self._seed, epoch])
        # A phase is drawn such that at least one whole window, with the target after it, is left.
        phase = int(random.integers(min(self._context_length, len(self._tokens) - self._context_length)))
        count = (len(self._tokens) - 1 - phase) // self._context_length
        self._epoch, self._position = epoch, 0
        self._starts: Tokens = phase + self._context_length * random.permutation(count)


def validation_windows(
    tokens: Tokens, context_length: int, batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs and targets over all of `tokens` in order, each (batch, seq): every token but the first is a target
    once. What is left after the last whole window comes as a batch of one shorter window."""
    whole, rest = divmod(len(tokens) - 1, context_length)
    for first in range(0, whole, batch_size):
        windows = range(first, min(first + batch_size, whole))
        yield _windows(tokens, [window * context_length for window in windows], context_length)
    if rest:
        yield _windows(tokens, [whole * context_length], rest)


def _windows(tokens: Tokens, starts: list[int], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    rows = np.stack([tokens[start : start + length + 1] for start in starts]).astype(np.int64)  # (batch, seq + 1)
    both = torch.from_numpy(rows)
    return both[:, :-1].contiguous(), both[:, 1:].contiguous()
