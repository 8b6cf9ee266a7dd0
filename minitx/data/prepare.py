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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minitx.config import DataConfig, TokenizerConfig
from minitx.data import sources
from minitx.data.batches import require_window
from minitx.data.encode import _encode, _sample
from minitx.data.split import divide
from minitx.data.spool import Chunk, Spool
from minitx.data.token_files import Tokens, read_tokens, sync
from minitx.data.tokenizer import Tokenizer
from minitx.system.errors import UserError, require
from minitx.system.files import checksum

FORMAT = 3  # of the prepared folder; a new one leaves older folders unused
FILES = ("tokenizer.model", "train.bin", "val.bin")
LEFTOVER_AGE = 24 * 3600  # seconds after which an unfinished folder is taken for a dead run's


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
