"""The suite `data`: megabytes of text per second that become tokens, against SentencePiece's own encoding."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from minitx.bench.settings import BenchConfig
from minitx.bench.shapes import Shape
from minitx.bench.tables import RATES, Table, rates, raw_seconds
from minitx.config import DataConfig, TokenizerConfig
from minitx.data import sources
from minitx.data.prepare import prepare
from minitx.data.tokenizer import Tokenizer
from minitx.system.errors import UserError
from minitx.system.runtime import Runtime
from minitx.system.timing import Candidate, alternate

SIZE = 8 << 20
"""Bytes of text at least: a shorter text is repeated."""
SAMPLE = 2 << 20
"""Bytes that the tokenizer learns from."""
BLOCK = 1 << 16
"""Characters of the blocks that SentencePiece is given where its speed is the point."""
BASE = "SentencePiece, blocks to arrays, 1 thread"


def run(settings: BenchConfig, shapes: list[Shape], runtime: Runtime) -> Iterator[Table]:
    """One table; the shapes do not matter."""
    text = text_of(settings)
    data = text.encode("utf-8", errors="replace")
    tokenizer = trained(text[:SAMPLE])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "text.txt"
        file.write_bytes(data)
        candidates = {
            **alone(tokenizer, text, runtime.threads),
            **whole(tokenizer, file, runtime.threads),
        }
        timed = alternate(candidates, repeats=settings.repeats, seconds=settings.seconds, label="data")
    found = rates(timed, BASE, len(data) / 1e6)
    yield Table(
        f"data, MB per second · {len(data) / 1e6:.1f} MB of {settings.text or 'python-docs'}, "
        f"{tokenizer.vocab_size} tokens",
        ["candidate", *RATES],
        [[name, *rate] for name, rate in found.items()],
        [
            "SentencePiece: from text in memory to tokens in memory. minitx prepare: from a file to token files, with "
            f"reading, splitting, checksums and writing through to the disk. × is against {BASE}."
        ],
        {"seconds": raw_seconds(timed), "bytes": len(data)},
    )


def text_of(settings: BenchConfig) -> str:
    """The text of --text, or python-docs, repeated until it is long enough to time."""
    config = DataConfig(source=settings.text or "python-docs", encoding_errors="replace")
    text = "".join(piece.text + ("\n" if piece.last else "") for piece in sources.read(config, "train"))
    return text * -(-SIZE // len(text.encode("utf-8", errors="replace")))


def trained(text: str) -> Tokenizer:
    """A tokenizer as minitx makes it by default, or by characters where the text is too poor for that."""
    try:
        return Tokenizer.train([text], TokenizerConfig())
    except UserError:
        return Tokenizer.train([text], TokenizerConfig(type="char"))


def alone(tokenizer: Tokenizer, text: str, threads: int) -> dict[str, Candidate]:
    """SentencePiece's own encoding: as it is fastest, and as most call it, from lines to lists."""
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_proto=tokenizer.proto)
    lines = text.splitlines(keepends=True)

    blocks = [text[start : start + BLOCK] for start in range(0, len(text), BLOCK)]

    def encode(count: int) -> Callable[[], object]:
        return lambda: processor.encode(blocks, return_type="numpy", num_threads=count)

    found: dict[str, Candidate] = {BASE: encode(1)}
    if threads > 1:
        found[f"SentencePiece, blocks to arrays, {threads} threads"] = encode(threads)
    found["SentencePiece, lines to lists, 1 thread"] = lambda: processor.encode(lines, num_threads=1)
    return found


def whole(tokenizer: Tokenizer, file: Path, threads: int) -> dict[str, Candidate]:
    """minitx's preparing of a file with a tokenizer that is there already, into an empty cache each time."""

    def preparing(count: int) -> Callable[[], object]:
        def prepare_anew() -> None:
            with own_cache():
                prepare(
                    DataConfig(source=str(file), encoding_errors="replace"),
                    TokenizerConfig(),
                    0,
                    progress=False,
                    tokenizer_model=tokenizer,
                    workers=count,
                )

        return prepare_anew

    found: dict[str, Candidate] = {"minitx prepare, 1 thread": preparing(1)}
    if threads > 1:
        found[f"minitx prepare, {threads} threads"] = preparing(threads)
    return found


@contextmanager
def own_cache() -> Iterator[None]:
    """While entered, prepared text goes to a folder that is removed again."""
    before, folder = os.environ.get("XDG_CACHE_HOME"), tempfile.mkdtemp()
    os.environ["XDG_CACHE_HOME"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before
        shutil.rmtree(folder, ignore_errors=True)
