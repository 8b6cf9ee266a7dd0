"""The tracks of the suite `budget`: a text with a fixed split, the figure of a model on it, and what it should beat."""

import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minitx.bench.settings import TRACKS
from minitx.bench.shapes import config_file
from minitx.config import Config, DataConfig
from minitx.config.parsing import load_config
from minitx.config.shipped import config_names
from minitx.data.baselines import best_order, ngram_bits_per_byte, texts, xz_bits_per_byte
from minitx.data.prepare import Prepared, check_length, prepare
from minitx.data.tales.language import tales
from minitx.data.token_files import Tokens
from minitx.model import next_token_loss
from minitx.system.errors import require
from minitx.system.runtime import Runtime
from minitx.training.loop import evaluate
from minitx.training.state import bits_per_byte

TOKENIZERS = {"tinyshakespeare": "char", "tales": "word"}
"""Track → the tokenizer that its figure supposes; python-docs leaves it to the recipe."""
BATCH = 64
"""Windows that a model reads at once when it is scored."""


@dataclass(frozen=True)
class Track:
    """A text in the tokens of a recipe."""

    name: str
    prepared: Prepared
    entropy: float | None
    """Of tales: nats per token of their grammar, which knows no split."""

    @property
    def unit(self) -> str:
        """Of the figure."""
        return "bits per byte" if self.entropy is None else "nats above entropy"

    def figure(self, nats: float) -> float:
        """The figure of a loss in nats per token of the validation split."""
        if self.entropy is not None:
            return nats - self.entropy
        return bits_per_byte(nats, len(self.prepared.val), self.prepared.val_bytes)

    def figure_of(self, model: Any, val: Tokens, runtime: Runtime) -> float:
        """The figure of a model on the whole validation split: every token but the first is predicted once.

        No window is longer than the context of training. Tales are read each by itself, other texts straight on.
        """
        loss = evaluate if self.entropy is None else document_loss
        return self.figure(loss(model, val, BATCH, runtime))

    def baselines(self) -> dict[str, float]:
        """The figures of the byte n-gram and xz, which pay nothing for the ends of documents."""
        train, val = texts(self.prepared)
        order = best_order(train)
        name, nats = f"byte n-gram, n = {order}", math.log(2) * len(val) / (len(self.prepared.val) - 1)
        bits = {name: ngram_bits_per_byte(train, val, order), "xz -9e": xz_bits_per_byte(train, val)}
        return {name: self.figure(nats * of_byte) for name, of_byte in bits.items()}


def recipe_on(name: str, file: str | None, text: str | None) -> Config:
    """A recipe for a track, by default minitx's own, with the track's text; raises UserError if they do not fit.

    file: a YAML file, or the name of one in configs/. text: the file of tinyshakespeare.
    """
    known = tuple(config_names())
    config, shipped = (load_config(config_file(recipe, known)) for recipe in (file or TRACKS[name], TRACKS[name]))
    found, needed = config.tokenizer.type, TOKENIZERS.get(name)
    require(
        found == needed or needed is None,
        f"{file} has a tokenizer of type {found}, but the track {name} is scored by {needed}: set tokenizer.type.",
    )
    data = shipped.data
    if name == "tinyshakespeare":
        data = DataConfig(source=str(text), split_by="position", val_fraction=0.1)
    return dataclasses.replace(config, data=data)


def track_of(name: str, config: Config) -> Track:
    """The track in the tokens of a recipe; prepares the text, or loads it."""
    prepared = prepare(config.data, config.tokenizer, config.seed, progress=True)
    check_length(prepared, config.model.context_length)
    if name != "tales":
        return Track(name, prepared, None)
    told = itertools.islice(tales("validation", config.data.seed or 0), prepared.val_documents)
    return Track(name, prepared, sum(tale.nats for tale in told) / (len(prepared.val) - 1))


def renumbered(prepared: Prepared) -> tuple[Tokens, Tokens, int]:
    """Both splits with only those tokens that occur, numbered from 0, and how many there are: for a peer."""
    used = np.union1d(prepared.train, prepared.val)
    train, val = (
        np.searchsorted(used, tokens).astype(prepared.train.dtype) for tokens in (prepared.train, prepared.val)
    )
    return train, val, len(used)


@torch.inference_mode()
def document_loss(model: Any, tokens: Tokens, batch_size: int, runtime: Runtime) -> float:
    """Mean loss in nats per token over all of `tokens`, each document read by itself from the end of the one before.

    A document longer than the context is read in windows side by side. The first token is an end of document.
    """
    ends, length = np.flatnonzero(tokens == tokens[0]), model.config.context_length
    windows = [
        tokens[start : min(start + length, stop) + 1].astype(np.int64)
        for first, stop in itertools.pairwise(ends)
        for start in range(first, stop, length)
    ]
    windows.sort(key=len)
    total = 0.0
    for first in range(0, len(windows), batch_size):
        some = windows[first : first + batch_size]
        inputs, targets = padded([w[:-1] for w in some], 0), padded([w[1:] for w in some], -100)  # which is ignored
        with runtime.autocast():
            logits = model(inputs.to(runtime.device))
        total += float(next_token_loss(logits, targets.to(runtime.device), reduction="sum"))
    return total / (len(tokens) - 1)


def padded(rows: list[Tokens], filler: int) -> Tensor:
    """(row, seq): rows filled up at their end to the longest."""
    return torch.nn.utils.rnn.pad_sequence(list(map(torch.from_numpy, rows)), batch_first=True, padding_value=filler)
