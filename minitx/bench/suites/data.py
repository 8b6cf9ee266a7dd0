"""The suite `data`: megabytes of text tokenized per second, against SentencePiece alone."""

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest import mock

from sentencepiece import SentencePieceProcessor

from minitx.bench.suite import Bench, Table
from minitx.config import DataConfig, TokenizerConfig
from minitx.data import sources
from minitx.data.prepare import prepare
from minitx.data.tokenizer import Tokenizer
from minitx.system.errors import UserError
from minitx.system.timing import Candidate

SIZE = 8 << 20
"""Bytes of text at least: a shorter text is repeated."""
SAMPLE = 2 << 20
"""Characters that the tokenizer learns from."""
BLOCK = 1 << 16
"""Characters of the blocks on which SentencePiece is fastest."""
BASE = "SentencePiece, blocks to arrays, 1 thread"


def run(bench: Bench) -> Iterator[Table]:
    """Yield one table, the same for every shape."""
    source = bench.settings.text or "python-docs"
    text = text_of(source)
    data = text.encode("utf-8", errors="replace")
    tokenizer, megabytes = trained(text[:SAMPLE]), len(data) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "text.txt"
        file.write_bytes(data)
        timed = bench.time(candidates_on(text, file, tokenizer, bench.runtime.threads), "data")
    title = f"data, MB per second · {megabytes:.1f} MB of {source}, {tokenizer.vocab_size} tokens"
    table = Table(title, raw={"bytes": len(data)})
    table.add_rates("seconds", timed, BASE, megabytes, {})
    table.notes.append(
        "SentencePiece: from text in memory to tokens in memory. minitx prepare: from a file to token files, with "
        f"reading, splitting, checksums and writing through to the disk. × is against {BASE}."
    )
    yield table


def text_of(source: str) -> str:
    """A text repeated until it is long enough to time."""
    pieces = sources.read(DataConfig(source=source, encoding_errors="replace"), "train", seed=1)
    text = "".join(piece.text + ("\n" if piece.last else "") for piece in pieces)
    return text * -(-SIZE // len(text.encode("utf-8", errors="replace")))


def trained(text: str) -> Tokenizer:
    """minitx's default tokenizer, or one by characters for a text too small for it."""
    try:
        return Tokenizer.train([text], TokenizerConfig())
    except UserError:
        return Tokenizer.train([text], TokenizerConfig(type="char"))


def candidates_on(text: str, file: Path, tokenizer: Tokenizer, threads: int) -> dict[str, Candidate]:
    """SentencePiece on `text`, in blocks and, as most call it, by lines; minitx on the same text in `file`."""
    processor = SentencePieceProcessor(model_proto=tokenizer.proto)
    blocks = [text[start : start + BLOCK] for start in range(0, len(text), BLOCK)]
    lines, data = text.splitlines(keepends=True), DataConfig(source=str(file), encoding_errors="replace")

    def prepare_anew(n: int) -> None:
        with tempfile.TemporaryDirectory() as cache, mock.patch.dict(os.environ, XDG_CACHE_HOME=cache):
            prepare(data, TokenizerConfig(), 0, progress=False, tokenizer_model=tokenizer, workers=n)

    by_blocks = partial(processor.encode, blocks, return_type="numpy")
    candidates: dict[str, Candidate] = {}
    candidates["SentencePiece, lines to lists, 1 thread"] = partial(processor.encode, lines, num_threads=1)
    for n in sorted({1, threads}):
        on = f"{n} thread{'s' if n > 1 else ''}"
        candidates[f"SentencePiece, blocks to arrays, {on}"] = partial(by_blocks, num_threads=n)
        candidates[f"minitx prepare, {on}"] = partial(prepare_anew, n)
    return candidates
