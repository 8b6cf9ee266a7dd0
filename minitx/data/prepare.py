"""Text → token files: read, split into training and validation, train a tokenizer, encode everything, once.

`prepare` keeps the result in a cache folder, whose name is a hash of all that it depends on. The folder is built under
another name and renamed, so that an interrupted run, or a second one at the same time, spoils nothing.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from filelock import FileLock, Timeout
from tqdm import tqdm

from minitx.config import DataConfig, TokenizerConfig
from minitx.data import sources
from minitx.data.encode import sample, write_token_files
from minitx.data.overlap import share_in_training
from minitx.data.sources import Piece
from minitx.data.split import divide
from minitx.data.spool import Spool
from minitx.data.token_files import Tokens, require_window
from minitx.data.tokenizer import Tokenizer
from minitx.system.errors import UserError, require
from minitx.system.fields import Fields
from minitx.system.files import checksum, digest, json_bytes, read_json, remove, sha256, write_atomically
from minitx.system.recorded import is_unchanged, read_record, record

FORMAT = 6  # of the prepared folder; folders of another format are never looked at
BEGINNING = 10_000  # documents of a stream, if data.max_documents is not set
FILES = ("tokenizer.model", "train.npy", "val.npy")
COUNTS = {"train_bytes": 0, "val_bytes": 1, "train_documents": 0, "val_documents": 0}  # and the least of each


@dataclass(frozen=True)
class Prepared:
    """A tokenized corpus. The tokens of a split start with end of document, which also follows every document."""

    folder: Path
    tokenizer: Tokenizer
    train: Tokens
    val: Tokens
    train_bytes: int  # of UTF-8
    val_bytes: int
    train_documents: int
    val_documents: int
    fingerprint: str  # SHA-256 over the text of all documents, in hexadecimal
    val_fingerprint: str  # the same over those that validate: it tells one split from another
    val_in_train: float  # share of the validation text that stands in the training text too, see `share_in_training`

    def describe(self) -> dict[str, int | float | str]:
        """The corpus in plain numbers."""
        return {
            "fingerprint": self.fingerprint,
            "prepared": self.folder.name,
            "tokenizer": self.tokenizer.digest,
            "vocabulary": self.tokenizer.vocab_size,
            "train_tokens": len(self.train),
            "val_tokens": len(self.val),
            "train_documents": self.train_documents,
            "train_bytes": self.train_bytes,
            "val_documents": self.val_documents,
            "val_bytes": self.val_bytes,
            "val_fingerprint": self.val_fingerprint,
            "val_in_train": self.val_in_train,
        }


def prepare(
    data: DataConfig,
    tokenizer: TokenizerConfig,
    seed: int,
    *,
    progress: bool,
    tokenizer_model: Tokenizer | None = None,
    cached_folder: str | None = None,
    workers: int | None = None,
) -> Prepared:
    """Read, split and tokenize the text that `data` names, or load it from the cache; of a stream only its beginning.

    seed: of the run; decides which documents are held out if `data.seed` is None.
    tokenizer_model: is used instead of training one.
    cached_folder: where a resumed run found its Hub data; read from there, without contacting the Hub.
    workers: threads that encode; by default one per core.

    Raises `UserError` for everything that is wrong with the source.
    """
    if data.streaming == "train":
        count = data.max_documents or BEGINNING
        data = dataclasses.replace(data, streaming=True, max_documents=count, split_by="document")
    is_on_hub = sources.is_on_hub(data.source)
    require(
        is_on_hub or data.val_split is None,
        f"data.val_split is {data.val_split}, but only a Hub data set has splits: leave it out.",
    )
    seed = seed if data.seed is None else data.seed
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minitx"
    _remove_leftovers(root)
    name = re.fullmatch("[0-9a-f]{32}", cached_folder or "")  # no path that leaves the cache
    if is_on_hub and name and (cached := _load(root / name[0], tokenizer_model)):
        return cached
    inputs = {
        "format": FORMAT,
        "sentencepiece": importlib.metadata.version("sentencepiece"),
        "data": {**dataclasses.asdict(data), "seed": None},  # named below
        "source": sources.identity(data),
        "seed": seed,
    }
    size = None if tokenizer.type == "char" else tokenizer.vocab_size
    folder = root / digest({**inputs, "tokenizer": [tokenizer.type, size]})[:32]
    if cached := _load(folder, tokenizer_model):
        return cached
    if tokenizer_model is not None:
        about = [tokenizer_model.digest, tokenizer_model.end_of_document]
        folder = root / digest({**inputs, "tokenizer": about})[:32]
        if cached := _load(folder, tokenizer_model):
            return cached
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _unfinished(root) as unfinished:
            cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
            _build(unfinished, data, tokenizer, seed, progress, tokenizer_model, workers or cores)
            return _move(unfinished, folder, tokenizer_model)
    except OSError as error:
        raise UserError(
            f"The cache folder {root} cannot be written ({error.strerror or error}): make room there, or set "
            "XDG_CACHE_HOME to another folder."
        ) from error


def check_length(prepared: Prepared, context_length: int) -> None:
    """Raise `UserError` if the training text is shorter than one window, or validation has no token to predict."""
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
    """Fill `folder` with tokenizer.model, train.npy, val.npy and meta.json."""
    spools: dict[str, Spool] = {}
    for split, name in sources.splits(data).items():
        with _bar(f"reading {name}", None, progress) as bar:
            spools[split] = Spool(folder / f"{split}.spool", sources.read(data, name, seed), bar.update)
        holds_text = any(piece.text.strip() for piece in spools[split])
        require(holds_text, f"data.source {data.source} holds no text but spaces and line breaks: name another.")

    def pieces() -> Iterator[tuple[str, Piece]]:
        if "val" not in spools:
            return divide(spools["train"], data, seed)
        return ((split, piece) for split, spool in spools.items() for piece in spool)

    val_digest = hashlib.sha256()
    for split, piece in pieces():
        val_digest.update(piece.text.encode() + b"\xff" * piece.last if split == "val" else b"")
    total = sum(spool.bytes for spool in spools.values())
    if tokenizer is None:
        training = (piece for split, piece in pieces() if split == "train")
        sampled = training if config.type in ("char", "word") else sample(training, total)
        tokenizer = Tokenizer.train((piece.text for piece in sampled), config)
    tokenizer.save(folder / "tokenizer.model")
    with _bar("encoding", total, progress) as bar:
        counts = write_token_files(folder, pieces(), tokenizer, workers, bar.update)
    fingerprint = "".join(spool.fingerprint for spool in spools.values())
    if len(spools) > 1:
        fingerprint = sha256(fingerprint.encode())
    about = {"val_fingerprint": val_digest.hexdigest(), "val_in_train": share_in_training(pieces)}
    for spool in spools.values():
        spool.path.unlink()
    about |= {"fingerprint": fingerprint, "checksums": {name: record(folder / name)._asdict() for name in FILES}}
    write_atomically(folder / "meta.json", json_bytes({**counts, **about}))


def _load(folder: Path, tokenizer_model: Tokenizer | None = None) -> Prepared | None:
    """The corpus in `folder`; None if it is missing or damaged, or not of `tokenizer_model` (if that is given)."""
    try:
        meta = Fields(read_json(folder / "meta.json"), str(folder / "meta.json"))
        checksums = meta.inside("checksums", dict)
        is_whole = all(is_unchanged(folder / name, read_record(checksums, name)) for name in FILES)
        if not is_whole or (tokenizer_model and checksum(folder / "tokenizer.model") != tokenizer_model.digest):
            return None
        tokenizer = tokenizer_model or Tokenizer.load(folder / "tokenizer.model")
        train, val = (np.load(folder / f"{split}.npy", mmap_mode="r", allow_pickle=False) for split in ("train", "val"))
        if max(train.max(), val.max()) >= tokenizer.vocab_size:
            return None
        about: dict[str, Any] = {name: meta.whole(name, least) for name, least in COUNTS.items()}
        about |= {name: meta.text(name, "[0-9a-f]{64}") for name in ("fingerprint", "val_fingerprint")}
        return Prepared(folder, tokenizer, train, val, val_in_train=meta.number("val_in_train", 0, 1), **about)
    except Exception:  # numpy can raise anything on a file made by hand
        return None


def _move(unfinished: Path, folder: Path, tokenizer_model: Tokenizer | None) -> Prepared:
    """Give a filled folder its name in one step, or use the folder of a process that was first."""
    for _ in range(3):
        with contextlib.suppress(OSError):
            unfinished.rename(folder)
        if prepared := _load(folder, tokenizer_model):
            return prepared
        remove(folder)  # damaged, and in the way
    raise UserError(f"The prepared data cannot be put into {folder}: remove that folder.")


@contextlib.contextmanager
def _unfinished(root: Path) -> Iterator[Path]:
    """An empty folder in `root` to fill; locked, so that others know that this process runs, and removed at the end."""
    with contextlib.ExitStack() as stack:
        with contextlib.ExitStack() as briefly:
            _lock(root / ".lock", briefly, seconds=10)  # or another process would remove the folder before it is locked
            folder = Path(tempfile.mkdtemp(prefix="unfinished-", dir=root))
            stack.callback(remove, folder)
            _lock(folder / "lock", stack)
        (folder / "text").mkdir()
        yield folder / "text"


def _remove_leftovers(root: Path) -> None:
    """Remove the folders that killed processes left unfinished in `root`."""
    with contextlib.ExitStack() as stack:
        for left in root.glob("unfinished-*"):
            if _lock(root / ".lock", stack, seconds=10) and _lock(left / "lock", stack):
                remove(left)


def _lock(file: Path, stack: contextlib.ExitStack, seconds: float = 0) -> bool:
    """Lock `file` until `stack` ends; False if another process has it, or if this file system has no locks."""
    try:
        stack.enter_context(FileLock(file).acquire(timeout=seconds))
    except (Timeout, OSError, NotImplementedError):
        return False
    return True


def _bar(label: str, total: int | None, progress: bool) -> "tqdm[NoReturn]":
    """A progress bar over bytes, shown only on a terminal."""
    disable = None if progress else True  # None shows it only on a terminal
    return tqdm(total=total, desc=label, unit="B", unit_scale=True, leave=False, disable=disable)
