"""A small model, text and configuration that several tests share."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from minitx.attention import HeadAccess, Recorder
from minitx.config import Config, DataConfig, LogConfig, ModelConfig, TokenizerConfig, TrainConfig
from minitx.data.tales.language import tales
from minitx.data.tokenizer import Tokenizer
from minitx.model import Transformer

SENTENCE = "the cat sat on a mat and saw the dog that ate her hat while rain fell on every roof in town"


def small_text(sentences: int = 600) -> str:
    """A text with some order in it: word i is followed by word i+1, or skips one."""
    words_in_order = SENTENCE.split()
    generator, lines = torch.Generator().manual_seed(0), []
    for _ in range(sentences):
        at, words = int(torch.randint(0, len(words_in_order), (1,), generator=generator)), []
        for step in torch.randint(1, 3, (8,), generator=generator).tolist():
            at = (at + step) % len(words_in_order)
            words.append(words_in_order[at])
        lines.append(" ".join(words) + ".")
    return "\n".join(lines) + "\n"


def small_config(folder: Path, **train: Any) -> Config:
    """A run of seconds on the text in `folder`/text.txt, which is written if it is missing."""
    text = folder / "text.txt"
    if not text.exists():
        text.write_text(small_text(), "utf-8")
    settings = {
        "steps": 12,
        "batch_size": 4,
        "warmup_steps": 2,
        "eval_every": 6,
        "checkpoint_every": 4,
        "sample_every": 6,
        "sample_tokens": 10,
        **train,
    }
    return Config(
        out=str(folder / "runs" / "small"),
        device="cpu",
        dtype="float32",
        threads=1,
        data=DataConfig(source=str(text)),
        tokenizer=TokenizerConfig(type="char"),
        model=ModelConfig(n_layer=2, n_head=2, d_model=16, context_length=32),
        train=TrainConfig(**settings),
        log=LogConfig(every=1, heads_every=6, probes=["the cat sat.", "rain fell"]),
    )


def looking(explicit: bool, gates: Tensor | None = None) -> HeadAccess:
    """Access by the explicit or the fused route: a recorder takes the explicit one."""
    return HeadAccess(gates, Recorder() if explicit else None)


def small_model(vocab_size: int = 30, seed: int = 0) -> Transformer:
    """An untrained model."""
    torch.manual_seed(seed)
    return Transformer(ModelConfig(n_layer=2, n_head=2, d_model=16, context_length=32), vocab_size).eval()


@functools.cache
def tale_tokenizer(kind: Literal["word", "char"]) -> Tokenizer:
    """A tokenizer that knows every word of the tales, or their letters."""
    return Tokenizer.train(
        (tale.text for tale in itertools.islice(tales("train", 1), 600)), TokenizerConfig(kind, 2048)
    )


class Letters:
    """A tokenizer with a token for each letter."""

    byte_tokens: Sequence[int] = ()

    def encode(self, text: str) -> list[int]:
        return [ord(c) % 30 for c in text]

    def token_bytes(self, token: int) -> bytes:
        return b"x"

    def token_text(self, token: int) -> str:
        return f"<{token}>"

    def token_labels(self, tokens: Sequence[int]) -> list[str]:
        return [self.token_text(token) for token in tokens]
