"""A tiny shape, quick settings and a stand-in for a checkout of nanoGPT, for the tests of the benchmarks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from minitx.bench.settings import BenchConfig
from minitx.bench.shapes import Shape
from minitx.bench.suite import Bench
from minitx.config import ModelConfig, TrainConfig
from minitx.system.runtime import Runtime, choose_runtime

TINY = Shape(
    "tiny",
    61,
    ModelConfig(n_layer=2, n_head=2, d_model=16, context_length=16),
    TrainConfig(batch_size=2, grad_accum=2),
)

STAND_IN = """
from dataclasses import dataclass
import torch
from torch import nn
from torch.nn import functional as F


@dataclass
class GPTConfig:
    block_size: int = 8
    vocab_size: int = 8
    n_layer: int = 1
    n_head: int = 1
    n_embd: int = 8
    dropout: float = 0.0
    bias: bool = True


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        print("loud")
        self.embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.output = nn.Linear(config.n_embd, config.vocab_size, bias=config.bias)

    def forward(self, idx, targets=None):
        logits = self.output(self.embedding(idx))
        if targets is None:
            return logits[:, [-1]], None
        return logits, F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))

    def configure_optimizers(self, weight_decay, learning_rate, betas, device_type):
        print("loud")
        return torch.optim.AdamW(self.parameters(), lr=learning_rate, betas=betas, weight_decay=weight_decay)
"""
"""With nanoGPT's interface, and a model of pairs of characters."""


def cpu() -> Runtime:
    """One thread in float32."""
    return choose_runtime("cpu", "float32", False, 1)


def quick(**settings: Any) -> BenchConfig:
    """A comparison of two rounds."""
    return BenchConfig(**{"repeats": 2, "seconds": 0.01, "threads": 1, "device": "cpu", **settings})


def bench(shape: Shape = TINY, runtime: Runtime | None = None, **settings: Any) -> Bench:
    """Such a comparison on one thread in float32, or in `runtime`."""
    return Bench(quick(**settings), [shape], runtime or cpu())


def nano_gpt_checkout(folder: Path) -> Path:
    """A folder with the stand-in for nanoGPT's model.py."""
    checkout = folder / "nanoGPT"
    checkout.mkdir()
    (checkout / "model.py").write_text(STAND_IN, "utf-8")
    return checkout
