"""A tale and its labels, and the teller that writes it: draws words, says sentences, labels what they depend on.

Every draw is even and can be read off the text. So the probability of a tale is the product of its draws.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Literal, NamedTuple, TypeVar

from minitx.data.tales import words

T = TypeVar("T")
Span = tuple[int, int]
"""Where words stand in a text: start and end, in characters."""
Split = Literal["train", "validation"]
HELD_OUT, NEW = 0.1, 0.1
"""Shares of the combinations of labelled words that validate, and of the pairs that training never sees."""
SLOT = re.compile(r"\{(\w+)\}")
KINDS = {
    "determiner": "two red [plums], a red [plum]: a determiner decides the number of its noun",
    "adjective": "a ripe red [plum], a woollen red [hat]: an adjective decides what its noun can be",
    "agreement": "the dogs near the house [were]: the subject decides the verb, not the noun between",
    "object": "ate a red [plum], read a red [book]: the verb decides what its object can be",
    "pronoun": "Sara slept because [she]: gender, number and animacy decide the pronoun",
    "possessive": "the dogs lost [their]: the owner decides the possessive",
    "property": "they found a fox. It was very [hungry]: a noun decides what can be said of it",
    "reference": "it was too wide. They saw that the [street]: an adjective decides which of two nouns was meant",
    "role": "Sara lent Maya her book because she needed it. Everybody knew that [Maya]: a verb decides who",
    "holder": "Sara took the book from Maya. Now it was in the bag of [Sara]: who has what after it changed hands",
    "name": "a name of the first sentence, needed again sentences later",
    "repeat": "too tired … too [tired]: what followed the same word before",
    "negation": "Tom didn't water the garden. Later it was [dry]: what did not happen is not true later",
    "cause": "she shivered because it was so [cold]: an effect decides its cause",
    "time": "she read after she ate. First she [ate]: before and after decide what came first",
    "attachment": "saw the king with a beard. So the [king] had it: a noun decides whom a phrase belongs to",
    "ambiguous": "saw the king with a telescope. So the [king] had it: nothing decides, both readings are as likely",
    "place": "the place of the first sentence, needed again in the last",
}
"""Kind of relationship → an example, with the word to predict in brackets, and what decides it."""


class Label(NamedTuple):
    """A word that cannot be predicted without an earlier one."""

    kind: str
    """Of the relationship, such as agreement."""
    word: Span
    """The word to predict."""
    source: Span
    """The word before it, at which it is predicted: attention goes from here."""
    target: Span
    """The earlier word that decides it: attention goes to here."""
    rivals: tuple[str, ...]
    """Words that would be right, were the relationship another."""
    others: tuple[Span, ...]
    """Earlier places of rivals, where there are any: attention should not go there."""
    is_new: bool
    """Whether training never decides it from this pair of words, such as this verb and this object."""


class Tale(NamedTuple):
    """A document of the language."""

    text: str
    labels: tuple[Label, ...]
    nats: float
    """-log of its probability in the whole grammar, which knows no split; end of document included."""


class Reason(NamedTuple):
    """What decides a word: see `Label`."""

    kind: str
    to: str
    """Slot of the earlier word that decides."""
    rivals: tuple[str, ...]
    others: tuple[str, ...] = ()
    """Slots of the earlier places of rivals."""


class Needed(NamedTuple):
    """A word to say that earlier words decide."""

    word: str
    reasons: tuple[Reason, ...]
    pair: tuple[str, ...] = ()
    """Words whose combination may be kept from training altogether."""


def needed(word: str, kind: str, to: str, rivals: Iterable[str], pair: tuple[str, ...] = ()) -> Needed:
    """A word to say that is decided for one reason."""
    return Needed(word, (Reason(kind, to, tuple(rivals)),), pair)


def one_of(said: Mapping[str, str], slot: str, kind: str) -> Needed:
    """The word that was said in `slot`, with those of the other slots as its rivals."""
    others = tuple(other for other in said if other != slot)
    reason = Reason(kind, slot, tuple(said[other] for other in others), others)
    return Needed(said[slot], (reason,), tuple(said.values()))


def share(*words: object) -> float:
    """A number in [0, 1) that depends on the words alone, and on no version or machine."""
    return int.from_bytes(blake2b(repr(words).encode(), digest_size=7).digest()) / 2**56


@dataclass
class Teller:
    """Tells one tale. `random` returns even numbers in [0, 1)."""

    random: Callable[[], float]
    split: Split
    text: str = ""
    labels: list[Label] = field(default_factory=list)
    nats: float = 0.0
    spans: dict[str, Span] = field(default_factory=dict)
    """Where the word of each slot was said last."""
    is_allowed: bool = True
    """Whether every sentence so far belongs to the split."""

    def pick(self, options: Sequence[T], *but: T) -> T:
        """One of `options` that is none of `but`; all are equally likely."""
        left = [option for option in options if option not in but] if but else options
        self.nats += math.log(len(left))
        return left[int(self.random() * len(left))]

    def rivals(self, options: Sequence[T], *but: T) -> list[T]:
        """Three of `options` that are none of `but`. No draw: the length of the text decides."""
        left = [option for option in options if option not in but]
        start = len(self.text) % len(left)
        return [*left[start:], *left[:start]][:3]

    def say(self, sentence: str, **words_by_slot: str | Needed) -> None:
        """Write a sentence with a word in each {slot}, and label those that are `Needed`."""
        text, first, used = self.text + " " * bool(self.text), len(self.labels), 0
        start, spans = len(text), dict(self.spans)
        for slot in SLOT.finditer(sentence):
            text += sentence[used : slot.start()]
            used, word = slot.end(), words_by_slot[slot[1]]
            need = word if isinstance(word, Needed) else Needed(word, ())
            span, is_new = (len(text), len(text) + len(need.word)), bool(need.pair) and share(*need.pair) < NEW
            for kind, to, rivals, others in need.reasons:
                rivals = tuple(map(str.capitalize, rivals)) if span[0] == start else rivals
                places = tuple(spans[other] for other in others)
                self.labels.append(Label(kind, span, last_word(text), spans[to], rivals, places, is_new))
            text += need.word
            spans[slot[1]] = span
        text += sentence[used:]
        self.text, self.spans = text[:start] + text[start].upper() + text[start + 1 :], spans
        self.is_allowed &= self._belongs(sentence, self.labels[first:])

    def _belongs(self, sentence: str, labels: Sequence[Label]) -> bool:
        """Whether the split may have a sentence with these words at its labelled places."""
        if not labels:
            return True
        spans = sorted({span for label in labels for span in (label.word, label.source, label.target, *label.others)})
        validates = share(sentence, *(self.text[slice(*span)] for span in spans)) < HELD_OUT
        is_new = any(label.is_new for label in labels)
        return validates if self.split == "validation" else not (validates or is_new)


WORD = re.compile(r"[\w'-]+|[^\w\s]")
"""A word or a punctuation mark: each is one token."""


def pronouns(owner: str) -> tuple[str, str, str]:
    """Subject, object and possessive pronoun of a name or noun."""
    if owner in words.GIRLS + words.WOMEN:
        return "she", "her", "her"
    if owner in words.BOYS + words.MEN:
        return "he", "him", "his"
    is_plural = any(owner == plural != singular for singular, plural in words.ANIMALS)
    return ("they", "them", "their") if is_plural else ("it", "it", "its")


def last_word(text: str) -> Span:
    """The last word or mark of a text."""
    return [match.span() for match in WORD.finditer(text)][-1]
