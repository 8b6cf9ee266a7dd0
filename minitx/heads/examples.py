"""Each head's strongest examples: the places in validation text where it attends most sharply.

A head's weight at a query is its greatest on a key other than the query itself and the first token of the window. Many
heads look at that one when there is nothing to find.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minitx.attention import HeadAccess, Recorder
from minitx.config import Config, ModelConfig
from minitx.data.token_files import Tokens
from minitx.data.tokenizer import Tokenizer
from minitx.heads.examples_file import PER_TENTH, STRONGEST, Examples, HeadExamples, Place
from minitx.model import Transformer

SCANNED_TOKENS, TRAINED_PER_SCANNED = 3072, 320
"""Tokens scanned at a step: at most 3072, and at most one for 320 that the run trains on, which takes less
than 1 % of its time."""
PATTERN_VALUES, MAX_PATTERN_VALUES = 2**20, 2**24
"""Of the patterns of one layer that are in memory at once: of a batch of windows, and of a single long window."""
SHARES = (0.25, 0.5, 0.75)
"""Of a run's steps, after which examples are sought, as at its end."""


def is_due(step: int, config: Config) -> bool:
    """Whether examples are sought after `step`: the end, or the evaluation nearest to one of `SHARES`."""
    every, steps = config.train.eval_every, config.train.steps
    near = {every * max(1, math.floor(share * steps / every + 0.5)) for share in SHARES}
    return bool(config.log.examples) and (step == steps or (step < steps and step in near))


def tokens_to_scan(config: Config) -> int:
    """How many tokens of validation text the setting log.examples asks for."""
    if config.log.examples is not True:
        return int(config.log.examples)
    train = config.train
    trained = train.steps * train.batch_size * train.grad_accum * config.model.context_length
    return min(SCANNED_TOKENS, trained // TRAINED_PER_SCANNED)


def scanned_windows(tokens: Tokens, config: ModelConfig, count: int) -> Tensor:
    """(window, seq): about `count` of `tokens` in whole windows, spread evenly over them; at least one window.

    A window is as long as the context, or shorter where the patterns of a layer take too much memory.
    """
    seq = min(config.context_length, len(tokens), math.isqrt(MAX_PATTERN_VALUES // config.n_head))
    whole = len(tokens) // seq
    n_windows = max(1, min(count // seq, whole))
    chosen = np.arange(n_windows) * whole // n_windows
    rows = np.stack([tokens[start : start + seq] for start in (chosen * seq).tolist()])
    return torch.from_numpy(rows.astype(np.int64))


class _Sharpest(Recorder):
    """Keeps of each layer's patterns, as soon as they are there, only the greatest weight of a query and its key."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[int, tuple[Tensor, Tensor]] = {}
        """Layer → weights and keys, each (batch, head, query)."""

    def record(self, layer: int, pattern: Tensor, value: Tensor, head_output: Tensor, output_weight: Tensor) -> None:
        weights, keys = pattern.detach().float().tril(-1)[..., 1:].max(dim=-1)
        self.found[layer] = weights, keys + 1


def sharpest(model: Transformer, windows: Tensor) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The greatest weight and its key, each (layer, head, window, query), for the queries 2, 3 … of `windows`.

    windows: (window, seq). Keys count from the start of the window. Weights are NaN in pruned heads. Dropout is off.
    """
    config, (count, seq) = model.config, windows.shape
    shape = (config.n_layer, config.n_head, count, max(0, seq - 2))
    weights, keys = np.full(shape, np.nan, dtype=np.float32), np.zeros(shape, dtype=np.int32)
    if seq < 3:
        return weights, keys
    batch = max(1, PATTERN_VALUES // (config.n_head * seq * seq))
    for first in range(0, count, batch):
        rows, recorder = slice(first, first + batch), _Sharpest()
        with torch.inference_mode():
            model.residual(windows[rows].to(model.embedding.weight.device), heads=HeadAccess(recorder=recorder))
        for layer, (weight, key) in recorder.found.items():
            heads = config.heads_in(layer)
            weights[layer, heads, rows] = weight[:, :, 2:].cpu().numpy().swapaxes(0, 1)
            keys[layer, heads, rows] = key[:, :, 2:].cpu().numpy().swapaxes(0, 1)
    return weights, keys


def find_examples(
    model: Transformer, tokenizer: Tokenizer, tokens: Tokens, count: int, step: int, run: str = ""
) -> Examples:
    """The examples of every head in about `count` of `tokens`; `run` is the `snapshots.run_id`."""
    windows = scanned_windows(tokens, model.config, count)
    weights, keys = sharpest(model, windows)
    text, seq = windows.flatten().numpy(), windows.size(1)
    starts = np.arange(len(windows))[:, None] * seq
    queries = (starts + np.arange(2, max(2, seq))).ravel()  # in the scanned text, as keys are below
    of_heads = []
    for layer in range(model.config.n_layer):
        for head in range(model.config.n_head):
            placed = (keys[layer, head] + starts).ravel()
            random = np.random.default_rng((layer, head))
            of_heads.append(examples_of(weights[layer, head].ravel(), queries, placed, text, random))
    labels = tokenizer.token_labels(text.tolist())
    return Examples(step, run, model.config.n_layer, model.config.n_head, seq, labels, of_heads)


def examples_of(
    weights: NDArray[np.float32],
    queries: NDArray[np.int64],
    keys: NDArray[np.int64],
    text: NDArray[np.int64],
    random: np.random.Generator,
) -> HeadExamples:
    """The strongest of places, given by arrays of equal length, and a sample from every tenth of the scale.

    queries, keys: numbers of tokens in `text`, whose entries are tokens.
    """
    if len(weights) == 0 or np.isnan(weights).any():  # a pruned head, or a ruined model
        return HeadExamples([], [], [])

    def places(chosen: Sequence[int]) -> list[Place]:
        return [Place(int(queries[i]), int(keys[i]), round(min(1.0, float(weights[i])), 4)) for i in chosen]

    order = np.argsort(-weights, kind="stable")
    pairs = text[queries[order]] * (text.max() + 1) + text[keys[order]]
    strongest = order[np.sort(np.unique(pairs, return_index=True)[1])[:STRONGEST]]
    tenths = np.minimum((weights * 10).astype(np.int64), 9)
    inside = [np.flatnonzero(tenths == tenth) for tenth in range(10)]
    samples = [random.choice(found, min(PER_TENTH, len(found)), replace=False) for found in inside]
    return HeadExamples(
        places(strongest.tolist()), [places(np.sort(sample).tolist()) for sample in samples], [*map(len, inside)]
    )
