"""What heads are for, where it is known: tales say for each word which earlier word decides it.

`answer` measures what a model knows: the share of words of each kind that it prefers to their rivals. `look` measures
where each head looks: its attention to the deciding word, beside that of other words of the tale over the same
distance. `use` measures what each head is good for: the answers lost without it, and without its pattern.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minitx.attention import HeadAccess, MultiHeadAttention, Recorder
from minitx.data.tales.tale import KINDS
from minitx.heads.places import Place, TaleBatch
from minitx.heads.record import patterns
from minitx.heads.scores import Floats
from minitx.latent_attention import LatentAttention
from minitx.model import Block, Transformer, evaluating, next_token_loss

Advance = Callable[[int], object]
"""Is called with the number of tales that are done."""
CLEAR = 2.0
"""Standard errors that a difference must exceed."""
MIN_EXCESS, MIN_DROP = 0.1, 0.01
"""A head is named after a kind if its attention exceeds the control by this share, and accuracy drops by this."""


class Mean(NamedTuple):
    """A mean and its standard error, numbers or arrays (layer, head); NaN where nothing was measured."""

    value: Any
    error: Any


@dataclass(frozen=True)
class Answers:
    """What a model knows of the language."""

    accuracy: dict[str, Mean]
    """Kind → share of the words that get a higher logit than all their rivals."""
    new: dict[str, Mean]
    """The same where training never had this pair of words."""
    chance: dict[str, float]
    """Kind → the share that guessing gets."""
    counts: dict[str, int]
    """Kind → words asked for."""
    loss: float
    """Nats per token over whole tales, each read by itself."""
    entropy: float
    """The same of the language itself: no model can do better on average."""
    above: Mean
    """`loss` - `entropy`."""

    def shares(self) -> dict[str, float]:
        """The accuracy of each kind, without its error."""
        return {kind: mean.value for kind, mean in self.accuracy.items()}


@dataclass(frozen=True)
class Looks:
    """Where heads look, in arrays (layer, head)."""

    attention: dict[str, Floats]
    """Kind → attention to the word that decides, from the word before the one to predict."""
    control: dict[str, Floats]
    """Kind → attention of other words of the same tale over the same distance."""
    excess: dict[str, Mean]
    """Kind → attention - control."""
    chance: dict[str, tuple[float, float]]
    """Kind → attention and control of a head that spreads its attention evenly."""


@dataclass(frozen=True)
class Uses:
    """The drop of accuracy without a head: Kind → arrays (layer, head)."""

    mean: dict[str, Mean]
    """With the head's output held at its mean over all words."""
    uniform: dict[str, Mean]
    """With the head's pattern alone replaced by even attention."""


def answer(model: Transformer, batches: Sequence[TaleBatch]) -> Answers:
    """Ask `model` for every labelled word, and for the loss on whole tales."""
    device, right, above = model.embedding.weight.device, [], []
    loss = nats = tokens = 0.0
    with evaluating(model), torch.inference_mode():
        for batch in batches:
            text = batch.tokens.to(device)
            residual = model.residual(text[:, :-1])
            right.append(is_right(model, residual, batch.places))
            losses = next_token_loss(model.unembed(residual), text[:, 1:], "none").view(len(text), -1).double().cpu()
            inside = torch.arange(losses.size(1)) < torch.from_numpy(batch.lengths - 1)[:, None]
            by_tale = (losses * inside).sum(dim=1).numpy()
            loss, nats, tokens = loss + by_tale.sum(), nats + batch.nats.sum(), tokens + float(inside.sum())
            above.append(by_tale - batch.nats)
    places, answers = [place for batch in batches for place in batch.places], np.concatenate(right)
    accuracy, new, chance, counts = {}, {}, {}, {}
    for kind in KINDS:
        asked = [i for i, place in enumerate(places) if place.kind == kind and place.rivals]
        accuracy[kind] = mean_of(answers[asked])
        new[kind] = mean_of(answers[[i for i in asked if places[i].is_new]])
        guesses = [1 / (1 + len(places[i].rivals)) for i in asked]
        chance[kind], counts[kind] = float(np.mean(guesses)) if guesses else math.nan, len(asked)
    difference, count = np.concatenate(above), sum(len(batch.lengths) for batch in batches)
    excess = Mean((loss - nats) / tokens, float(np.std(difference, ddof=1)) * math.sqrt(count) / tokens)
    return Answers(accuracy, new, chance, counts, loss / tokens, nats / tokens, excess)


def is_right(model: Transformer, residual: Tensor, places: Sequence[Place]) -> NDArray[np.float64]:
    """(place): 1 where the right word has a higher logit than its rivals; NaN where there are none.

    residual: (tale, seq, d_model) after the last block.
    """
    if not places:
        return np.zeros(0)
    at = residual[[place.row for place in places], [place.word - 1 for place in places]]  # (place, d_model)
    logits = model.unembed(at).float().cpu()  # (place, vocab_size)
    return np.array(
        [
            bool((row[list(place.rivals)] < row[place.right]).all()) if place.rivals else math.nan
            for place, row in zip(places, logits, strict=True)
        ]
    )


def look(model: Transformer, batches: Sequence[TaleBatch], advance: Advance = lambda _: None) -> Looks:
    """Measure where every head looks in the tales."""
    kinds: dict[str, list[tuple[Floats, Floats, float, float]]] = {kind: [] for kind in KINDS}
    for batch in batches:
        pattern = patterns(model, batch.tokens[:, :-1])  # (layer, tale, head, query, key)
        for place in batch.places:
            sources = {p.queries.start for p in batch.places if p.row == place.row and p.kind == place.kind}
            kinds[place.kind].append(_looks_at(pattern[:, place.row], place, int(batch.lengths[place.row]), sources))
        advance(len(batch.lengths))
    attention, control, excess, chance = {}, {}, {}, {}
    shape = (model.config.n_layer, model.config.n_head)
    for kind, found in kinds.items():
        to, other = (np.array([row[i] for row in found]).reshape(-1, *shape) for i in (0, 1))
        attention[kind], control[kind] = mean_of(to).value, mean_of(other).value
        excess[kind] = mean_of(to - other)
        chance[kind] = (
            mean_of(np.array([row[2] for row in found])).value,
            mean_of(np.array([row[3] for row in found])).value,
        )
    return Looks(attention, control, excess, chance)


def _looks_at(
    pattern: NDArray[np.float32], place: Place, length: int, sources: set[int]
) -> tuple[Floats, Floats, float, float]:
    """Attention and control of one place in a pattern (layer, head, query, key), and both for even attention."""
    width, distance = len(place.keys), place.queries.start - place.keys.start
    to = pattern[..., place.queries.start : place.queries.stop, place.keys.start : place.keys.stop]
    even = np.mean([width / (query + 1) for query in place.queries])
    others = np.array([query for query in range(distance, length - 1) if query not in sources])
    if not len(others):
        return to.sum(-1).mean(-1), np.full(pattern.shape[:2], np.nan), float(even), math.nan
    keys = others[:, None] - distance + np.arange(width)  # (query, key)
    control = pattern[..., others[:, None], keys].sum(-1).mean(-1)
    return to.sum(-1).mean(-1), control, float(even), float(np.mean(width / (others + 1)))


def use(model: Transformer, batches: Sequence[TaleBatch], advance: Advance = lambda _: None) -> Uses:
    """Measure what the answers lose without each head, and without its pattern."""
    config, device = model.config, model.embedding.weight.device
    means = mean_outputs(model, batches)
    lost: list[NDArray[np.float64]] = []
    with evaluating(model), torch.inference_mode():
        for batch in batches:
            residual = model.embedding(batch.tokens[:, :-1].to(device))
            without = np.zeros((2, config.n_layer, config.n_head, len(batch.places)))
            for layer, block in enumerate(model.blocks):
                for head in config.heads_in(layer):
                    gates = torch.ones(config.n_layer, config.n_head, device=device)
                    gates[layer, head] = 0
                    held = model.residual(residual, heads=HeadAccess(gates, stand_in=means), first_layer=layer)
                    without[0, layer, head] = is_right(model, held, batch.places)
                    with even_attention(cast(Block, block).attention, head):
                        even = model.residual(residual, first_layer=layer)
                    without[1, layer, head] = is_right(model, even, batch.places)
                residual = model.residual(residual, first_layer=layer, last_layer=layer)
            whole = is_right(model, residual, batch.places)
            lost.append(whole - without)
            advance(len(batch.lengths))
    drops = np.concatenate(lost, axis=-1).transpose(0, 3, 1, 2)  # (way, place, layer, head)
    kinds = np.array([place.kind for batch in batches for place in batch.places])
    known = ~np.isnan(drops).any(axis=(0, 2, 3))
    mean, uniform = ({kind: mean_of(way[known & (kinds == kind)]) for kind in KINDS} for way in drops)
    return Uses(mean, uniform)


def mean_outputs(model: Transformer, batches: Sequence[TaleBatch]) -> Tensor:
    """(layer, head, d_head): the mean output of every head over all tokens of the tales."""
    config, device = model.config, model.embedding.weight.device
    total, count = torch.zeros(config.n_layer, config.n_head, config.d_head, device=device), 0
    with evaluating(model), torch.inference_mode():
        for batch in batches:
            recorder = Recorder()
            model.residual(batch.tokens[:, :-1].to(device), heads=HeadAccess(recorder=recorder))
            inside = (
                torch.arange(batch.tokens.size(1) - 1) < torch.from_numpy(batch.lengths - 1)[:, None]
            )  # (tale, seq)
            for layer, output in recorder.head_outputs.items():  # (tale, head, seq, d_head)
                total[layer, config.heads_in(layer)] += (output * inside.to(device)[:, None, :, None]).sum(dim=(0, 2))
            count += int(inside.sum())
    return total / count


@contextmanager
def even_attention(attention: MultiHeadAttention | LatentAttention | None, head: int) -> Iterator[None]:
    """Let one head attend evenly to all it may see: without a query, all its scores are equal."""
    assert attention is not None
    weight = attention.query.weight.unflatten(0, (attention.n_head, -1))[attention.heads.index(head)]
    kept = weight.clone()
    weight.zero_()
    try:
        yield
    finally:
        weight.copy_(kept)


def mean_of(values: NDArray[Any]) -> Mean:
    """Mean and standard error over the first axis; NaN values are left out."""
    values = np.asarray(values, dtype=np.float64)
    known = (~np.isnan(values)).sum(axis=0)
    if not np.any(known):
        empty = np.full(values.shape[1:], np.nan)
        return Mean(empty, empty) if values.ndim > 1 else Mean(math.nan, math.nan)
    value = np.nanmean(values, axis=0)
    error = np.sqrt(np.nanmean((values - value) ** 2, axis=0) / np.maximum(known - 1, 1))
    return Mean(value, error) if values.ndim > 1 else Mean(float(value), float(error))


def kinds_of_heads(looks: Looks, uses: Uses) -> list[list[list[str]]]:
    """[layer][head]: the kinds that a head is named after, the one that it attends to most first.

    It attends to the deciding word above control, and accuracy drops without it; both by `CLEAR` standard errors and by
    `MIN_EXCESS` and `MIN_DROP`.
    """
    layers, heads = next(iter(looks.attention.values())).shape

    def is_above(mean: Mean, at: tuple[int, int], least: float) -> bool:
        return bool(mean.value[at] >= least and mean.value[at] > CLEAR * mean.error[at])

    def names(at: tuple[int, int]) -> list[str]:
        fit = [k for k in KINDS if is_above(looks.excess[k], at, MIN_EXCESS) and is_above(uses.mean[k], at, MIN_DROP)]
        return sorted(fit, key=lambda kind: -float(looks.excess[kind].value[at]))

    return [[names((layer, head)) for head in range(heads)] for layer in range(layers)]
