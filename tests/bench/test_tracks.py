"""Tracks: the split does not depend on the recipe, every token is scored once, entropy is that of the same tales."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from minitx.bench.tracks import Track, document_loss, recipe_on, renumbered, track_of
from minitx.config import ModelConfig
from minitx.data.baselines import best_order, ngram_bits_per_byte, xz_bits_per_byte
from minitx.model import Transformer
from minitx.system.errors import UserError
from tests.bench.small import cpu
from tests.small import small_text


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def track_of_tales() -> Track:
    """The shipped track on few tales."""
    recipe = recipe_on("tales", None, None)
    return track_of("tales", dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, max_documents=60)))


class Counting(nn.Module):
    """Gives every token the logit of how far from its window's start it is asked, so that windows show."""

    def __init__(self, context_length: int) -> None:
        super().__init__()
        self.config = SimpleNamespace(context_length=context_length)
        self.longest = 0

    def forward(self, tokens: Tensor) -> Tensor:
        self.longest = max(self.longest, tokens.size(1))
        place = torch.arange(tokens.size(1)).float()[None, :, None]
        return torch.cat([place.expand(*tokens.shape, 1), torch.zeros(*tokens.shape, 4)], dim=-1)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_documents_are_read_by_themselves_and_every_token_once(batch_size: int) -> None:
    tokens = np.array([0, 1, 2, 0, 3, 0, 1, 2, 3, 4, 1, 2, 3, 0, 0], np.uint16)
    model, total, place = Counting(3), 0.0, 0
    for before, token in itertools.pairwise(tokens):
        place = 0 if before == 0 or place == 2 else place + 1
        total += math.log(math.exp(place) + 4) - (place if token == 0 else 0)
    assert document_loss(model, tokens, batch_size, cpu()) == pytest.approx(total / 14, rel=1e-6)
    assert model.longest == 3


def test_the_entropy_is_that_of_the_tales_that_validate() -> None:
    track = track_of_tales()
    assert track.prepared.val_documents == 3
    assert track.unit == "nats above entropy"
    assert track.entropy is not None
    assert 0.5 < track.entropy < 2
    assert track.figure(track.entropy) == 0
    model = Transformer(ModelConfig(n_layer=1, n_head=2, d_model=16, context_length=64), 832)
    whole = track.figure_of(model, track.prepared.val, cpu())
    assert 0 < whole < 2 * math.log(832)


def test_a_peer_sees_the_same_tokens_under_other_numbers() -> None:
    prepared = track_of_tales().prepared
    train, val, size = renumbered(prepared)
    whole, again = (np.concatenate(parts).tolist() for parts in ((prepared.train, prepared.val), (train, val)))
    assert set(again) == set(range(size))
    assert len(set(zip(whole, again, strict=True))) == size == len(set(whole))


def test_another_recipe_keeps_the_text_of_the_track(tmp_path: Path) -> None:
    text, other = tmp_path / "text.txt", tmp_path / "other.yaml"
    text.write_text(small_text(), "utf-8")
    other.write_text("tokenizer:\n  type: char\ndata:\n  source: elsewhere.txt\n  val_fraction: 0.5\n")
    mine, theirs = (recipe_on("tinyshakespeare", file, str(text)) for file in (None, str(other)))
    assert mine.data == theirs.data
    track = track_of("tinyshakespeare", theirs)
    whole = text.read_bytes()
    split = whole[: int(0.9 * len(whole))], whole[int(0.9 * len(whole)) :]
    assert track.prepared.train_bytes == len(split[0])
    ngram, xz = track.baselines().items()
    assert (ngram[0], xz[0]) == (f"byte n-gram, n = {best_order(split[0])}", "xz -9e")
    assert (ngram[1], xz[1]) == pytest.approx((ngram_bits_per_byte(*split), xz_bits_per_byte(*split)), rel=1e-12)
    nats = math.log(2) * track.prepared.val_bytes / (len(track.prepared.val) - 1)
    assert track.figure(3 * nats) == pytest.approx(3)


def test_recipes_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="default has a tokenizer of type unigram, but the track tales"):
        recipe_on("tales", "default", None)
    with pytest.raises(UserError, match="did you mean default"):
        recipe_on("python-docs", "defualt", None)
