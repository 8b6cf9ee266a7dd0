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
from minitx.heads.importance import token_losses
from minitx.heads.places import Place, TaleBatch
from minitx.heads.record import MAX_PATTERN_VALUES, patterns
from minitx.heads.scores import Floats
from minitx.latent_attention import LatentAttention
from minitx.model import Block, Transformer

Advance = Callable[[int], object]
"""Is called with the number of tales that are done."""
CLEAR = 3.0
"""Standard errors that a difference must exceed. With 2, luck would name some of 16 heads times 18 kinds."""
MIN_EXCESS, MIN_DROP = 0.1, 0.01
"""A head is named after a kind if its attention exceeds the control by this share, and accuracy drops by this."""
FEW = 10
"""Fewer tales than this tell nothing of how far a mean may be off."""


class Mean(NamedTuple):
    """A mean and its standard error, numbers or arrays (layer, head); NaN where they are not known."""

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
    """The same of the grammar itself, which knows no split."""
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


def answer(model: Transformer, batches: Sequence[TaleBatch], advance: Advance = lambda _: None) -> Answers:
    """Ask `model` for every labelled word, and for the loss on whole tales."""
    device, right, losses = model.embedding.weight.device, [], []
    with torch.inference_mode():
        for batch in batches:
            text = batch.tokens.to(device)
            residual = model.residual(text[:, :-1])
            right.append(is_right(model, residual, batch.places))
            by_token = token_losses(model, residual, text[:, 1:]).double().cpu()
            losses.append((by_token * _inside(batch)).sum(dim=1).numpy())
            advance(len(batch.lengths))
    places = [place for batch in batches for place in batch.places]
    answers = np.concatenate(right)
    accuracy = by_kind(answers, batches)
    new = by_kind(np.where([place.is_new for place in places], answers, np.nan), batches)
    guesses = by_kind(np.array([1 / (1 + len(place.rivals)) if place.rivals else np.nan for place in places]), batches)
    chance = {kind: float(mean.value) for kind, mean in guesses.items()}
    counts = {kind: sum(place.kind == kind and bool(place.rivals) for place in places) for kind in KINDS}
    tokens, nats = np.concatenate([b.lengths - 1 for b in batches]), np.concatenate([b.nats for b in batches])
    loss, entropy = (float(total.sum() / tokens.sum()) for total in (np.concatenate(losses), nats))
    return Answers(accuracy, new, chance, counts, loss, entropy, ratio(np.concatenate(losses) - nats, tokens))


def _inside(batch: TaleBatch) -> Tensor:
    """(tale, seq): whether a token is to be read, or is what fills up the row."""
    return torch.arange(batch.tokens.size(1) - 1) < torch.from_numpy(batch.lengths - 1)[:, None]


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
    config, found = model.config, []
    for batch in batches:
        seq = batch.tokens.size(1) - 1
        rows = max(1, MAX_PATTERN_VALUES // (config.n_layer * config.n_head * seq**2))
        for first in range(0, len(batch.lengths), rows):
            pattern = patterns(model, batch.tokens[first : first + rows, :-1])  # (layer, tale, head, query, key)
            for place in batch.places:
                if first <= place.row < first + rows:
                    alike = {p.queries.start for p in batch.places if p.row == place.row and p.kind == place.kind}
                    length = int(batch.lengths[place.row])
                    found.append(_looks_at(pattern[:, place.row - first], place, length, alike))
        advance(len(batch.lengths))
    shapes = (config.n_layer, config.n_head), (config.n_layer, config.n_head), (), ()
    to, other, even, even_other = (
        np.array([row[i] for row in found]).reshape(-1, *shape) for i, shape in enumerate(shapes)
    )
    attention, control, by_chance, control_by_chance = (by_kind(of, batches) for of in (to, other, even, even_other))
    return Looks(
        {kind: mean.value for kind, mean in attention.items()},
        {kind: mean.value for kind, mean in control.items()},
        by_kind(to - other, batches),
        {kind: (by_chance[kind].value, control_by_chance[kind].value) for kind in KINDS},
    )


def _looks_at(
    pattern: NDArray[np.float32], place: Place, length: int, sources: set[int]
) -> tuple[Floats, Floats, float, float]:
    """Attention and control of one place in a pattern (layer, head, query, key), and both for even attention.

    The control has the same shape over the same distance, but starts at no word of `sources`. It never looks at the
    end of document before the tale, where heads with nothing to do rest.
    """
    span, distance = len(place.queries), place.queries.start - place.keys.start
    starts = [place.queries.start, *(i for i in range(distance + 1, length - span) if i not in sources)]
    queries = np.array(starts)[:, None] + np.arange(span)  # (start, query)
    keys = np.array(starts)[:, None] - distance + np.arange(len(place.keys))  # (start, key)
    looks = pattern[..., queries[:, :, None], keys[:, None]].sum(-1).mean(-1)  # (layer, head, start)
    even = (len(place.keys) / (queries + 1)).mean(-1)  # (start)
    if len(starts) == 1:
        return looks[..., 0], np.full(looks.shape[:2], np.nan), float(even[0]), math.nan
    return looks[..., 0], looks[..., 1:].mean(-1), float(even[0]), float(even[1:].mean())


def use(model: Transformer, batches: Sequence[TaleBatch], advance: Advance = lambda _: None) -> Uses:
    """Measure what the answers lose without each head, and without its pattern."""
    config, device = model.config, model.embedding.weight.device
    means = mean_outputs(model, batches)
    lost: list[NDArray[np.float64]] = []
    with torch.inference_mode():
        for batch in batches:
            residual = model.embedding(batch.tokens[:, :-1].to(device))
            without = np.full((2, config.n_layer, config.n_head, len(batch.places)), np.nan)
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
    return Uses(by_kind(drops[0], batches), by_kind(drops[1], batches))


def mean_outputs(model: Transformer, batches: Sequence[TaleBatch]) -> Tensor:
    """(layer, head, d_head): the mean output of every head over all tokens of the tales."""
    config, device = model.config, model.embedding.weight.device
    total, count = torch.zeros(config.n_layer, config.n_head, config.d_head, device=device), 0
    with torch.inference_mode():
        for batch in batches:
            recorder = Recorder()
            model.residual(batch.tokens[:, :-1].to(device), heads=HeadAccess(recorder=recorder))
            inside = _inside(batch)
            for layer, output in recorder.head_outputs.items():  # (tale, head, seq, d_head)
                total[layer, config.heads_in(layer)] += (output * inside.to(device)[:, None, :, None]).sum(dim=(0, 2))
            count += int(inside.sum())
    return total / count


@contextmanager
def even_attention(attention: MultiHeadAttention | LatentAttention | None, head: int) -> Iterator[None]:
    """Let one head attend evenly to all it may see: without a query, all its scores are equal.

    Not under autocast, which may keep the weight as it was.
    """
    assert attention is not None
    weight = attention.query.weight.detach().unflatten(0, (attention.n_head, -1))[attention.heads.index(head)]
    kept = weight.clone()
    weight.zero_()
    try:
        yield
    finally:
        weight.copy_(kept)


def by_kind(values: NDArray[Any], batches: Sequence[TaleBatch]) -> dict[str, Mean]:
    """Kind → the mean of `values` (place, …) over its places; NaN values are left out."""
    kinds = np.array([place.kind for batch in batches for place in batch.places], dtype=np.str_)
    tales = np.array([(i, place.row) for i, batch in enumerate(batches) for place in batch.places]).reshape(-1, 2)
    numbers = np.unique(tales, axis=0, return_inverse=True)[1].reshape(-1)  # (place): of its tale
    known, means = ~np.isnan(values), {}
    for kind in KINDS:
        of_kind = kinds == kind
        sums, counts = (np.zeros((len(numbers), *values.shape[1:])) for _ in range(2))
        np.add.at(sums, numbers[of_kind], np.where(known, values, 0)[of_kind])
        np.add.at(counts, numbers[of_kind], known[of_kind])
        means[kind] = ratio(sums, counts)
    return means


def ratio(sums: NDArray[Any], counts: NDArray[Any]) -> Mean:
    """Sum by count over the first axis, the tale, and its standard error.

    Tales are the sample, since words of one tale are not independent (Cochran 1977, Sampling Techniques, chapter 6).
    """
    known, total = (counts > 0).sum(axis=0), counts.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = sums.sum(axis=0) / total
        variance = ((sums - value * counts) ** 2).sum(axis=0) * known / (known - 1)
        return Mean(value, np.where(known < FEW, np.nan, np.sqrt(variance) / total)[()])


def kinds_above(means: dict[str, Mean], least: float) -> list[list[list[str]]]:
    """[layer][head]: the kinds whose mean is at least this and `CLEAR` standard errors above 0, the greatest first."""
    layers, heads = next(iter(means.values())).value.shape

    def above(*at: int) -> list[str]:
        kinds = (k for k, (value, error) in means.items() if value[at] >= least and value[at] > CLEAR * error[at])
        return sorted(kinds, key=lambda kind: -float(means[kind].value[at]))

    return [[above(layer, head) for head in range(heads)] for layer in range(layers)]


def kinds_needing(answers: Answers, uses: Uses) -> list[list[list[str]]]:
    """[layer][head]: the kinds that are known less without the head, of those that the model knows: above chance."""
    known = [k for k, (value, error) in answers.accuracy.items() if value - answers.chance[k] > CLEAR * error]
    return [[[k for k in kinds if k in known] for kinds in row] for row in kinds_above(uses.mean, MIN_DROP)]


def kinds_of_heads(answers: Answers, looks: Looks, uses: Uses) -> list[list[list[str]]]:
    """[layer][head]: the kinds that a head is named after, the one that it attends to most first.

    It attends to the deciding word above control, and accuracy drops without it; both by `CLEAR` standard errors and by
    `MIN_EXCESS` and `MIN_DROP`. Accuracy is `CLEAR` standard errors above chance, else its drop is luck.
    """
    attended, needed = kinds_above(looks.excess, MIN_EXCESS), kinds_needing(answers, uses)
    return [[[k for k in a if k in n] for a, n in zip(*row, strict=True)] for row in zip(attended, needed, strict=True)]
