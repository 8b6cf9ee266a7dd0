"""Tales as tokens: where each labelled word is predicted, where it can be looked up, and what competes with it."""

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minitx.config import Config
from minitx.config.probes import Link, Probe
from minitx.data.tales.language import tales
from minitx.data.tales.tale import Label, Tale
from minitx.data.tokenizer import Tokenizer
from minitx.heads.links import token_span

BATCH = 32
"""Tales that a model reads at once."""


class Place(NamedTuple):
    """A labelled word in tokens. Positions count from the end-of-document token that begins the tale."""

    row: int
    """Of the tale in its batch."""
    kind: str
    word: int
    """Position of the word's first token, which is predicted from the one before."""
    queries: range
    """The word before: its tokens look back."""
    keys: range
    """The word that decides."""
    right: int
    """The word's first token."""
    rivals: tuple[int, ...]
    """First tokens of the words that compete with it; none if one of them begins like the right word."""
    is_new: bool


@dataclass(frozen=True)
class TaleBatch:
    """Tales that a model reads at once."""

    tokens: Tensor
    """(tale, seq): end of document, a tale, and end of document up to the longest tale."""
    lengths: NDArray[np.int64]
    """(tale): tokens of each, both ends included."""
    nats: NDArray[np.float64]
    """(tale): -log of its probability in the language."""
    places: list[Place]


def held_out(config: Config, tokenizer: Tokenizer, count: int) -> list[TaleBatch]:
    """The first tales of the validation split: of the run's own seed, if it learned tales."""
    return place_tales(held_out_tales(config, count), tokenizer, config.model.context_length)


def held_out_tales(config: Config, count: int) -> list[Tale]:
    """The first `count` tales of the validation split of a run."""
    return list(itertools.islice(tales("validation", tale_seed(config)), count))


def tale_seed(config: Config) -> int:
    """The seed of the tales that a run validates on; 1 for a run that learned another text."""
    if config.data.source != "tales":
        return 1
    return config.seed if config.data.seed is None else config.data.seed


def run_probes(config: Config) -> list[Probe]:
    """The probes of a run; a run that learned tales has a held-out tale more, with all its labels as links."""
    probes = config.log.read_probes()
    return probes if config.data.source != "tales" else [*probes, tale_probe(held_out_tales(config, 1)[0])]


def tale_probe(tale: Tale) -> Probe:
    """A tale as a probe: links lead from the word before the one to predict to the word that decides it."""
    links: dict[str, Link] = {}
    for label in tale.labels:
        source, word, target = (tale.text[slice(*span)] for span in (label.source, label.word, label.target))
        name = f"{label.kind}: {source} [{word}] → {target}"
        name += f" #{len(links)}" * (name in links)
        links[name] = Link(name, label.source, label.target)
    return Probe(tale.text, tuple(links.values()))


def place_tales(told: Iterable[Tale], tokenizer: Tokenizer, context_length: int) -> list[TaleBatch]:
    """The tales in tokens, tales of like length together; those longer than the context are left out.

    Labels whose words share a token are left out, too.
    """
    end = tokenizer.end_of_document

    @functools.cache
    def first_token(word: str) -> tuple[int, bool]:
        """The first token of a word after a space, and whether the space is in it."""
        first, *others = filter(tokenizer.token_bytes, tokenizer.encode(f" {word}"))  # no <s>, which has no bytes
        return (others[0], False) if tokenizer.token_bytes(first) == b" " else (first, True)

    encoded = [([end, *tokenizer.encode(tale.text), end], tale) for tale in told]
    fitting = sorted((pair for pair in encoded if len(pair[0]) <= context_length + 1), key=lambda pair: len(pair[0]))
    batches = []
    for start in range(0, len(fitting), BATCH):
        chosen = fitting[start : start + BATCH]
        longest = len(chosen[-1][0])
        tokens = torch.tensor([ids + [end] * (longest - len(ids)) for ids, _ in chosen])
        places = []
        for row, (ids, tale) in enumerate(chosen):
            pieces = [b"", *(tokenizer.token_bytes(token) for token in ids[1:-1])]
            for label in tale.labels:
                place = _place(row, label, tale.text, pieces, ids, first_token)
                if place.keys.stop <= place.queries.start and place.queries.stop <= place.word:
                    places.append(place)
        lengths, nats = [len(ids) for ids, _ in chosen], [tale.nats for _, tale in chosen]
        batches.append(TaleBatch(tokens, np.array(lengths), np.array(nats), places))
    return batches


def _place(
    row: int,
    label: Label,
    text: str,
    pieces: Sequence[bytes],
    ids: Sequence[int],
    first_token: Callable[[str], tuple[int, bool]],
) -> Place:
    word, queries, keys = (token_span(text, pieces, span) for span in (label.word, label.source, label.target))
    marks = text[label.word[1] :].partition(" ")[0]  # a token may hold the end of a word and the mark after it
    right, has_space = ids[word.start], pieces[word.start].startswith(b" ")
    firsts = (first_token(rival + marks) for rival in label.rivals)
    # Where a rival is parted from its space and the right word is not, one token does not choose between them.
    rivals = {token for token, with_space in firsts if with_space == has_space}
    known = () if right in rivals else tuple(sorted(rivals))
    return Place(row, label.kind, word.start, queries, keys, right, known, label.is_new)
