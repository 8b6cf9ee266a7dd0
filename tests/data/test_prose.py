"""Each rule of the prose, on texts made for it."""

from __future__ import annotations

import pytest

from minitx.data.prose import is_new, is_prose, paragraphs, prose, whole_sentences, without_markup


def test_lines_are_joined_and_items_stand_alone() -> None:
    text = "A line\nand more.\n\n* One\n  item.\n* Two.\n1. Three\n   here.\n    Deeper.\nBack - here."
    assert list(paragraphs(text)) == ["A line and more.", "One item.", "Two.", "Three here.", "Deeper.", "Back - here."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("See :class:`~a.B` and ``x`` or `y'.", "See ~a.B and x or y."),
        (
            "An *iterable* of **kwargs** takes *args and 2 * 3 * 4.",
            "An iterable of **kwargs** takes *args and 2 * 3 * 4.",
        ),
        ("The object’s  value [1], it's “so”.", "The object's value, it's \"so\"."),
    ],
)
def test_markup_goes(text: str, expected: str) -> None:
    assert without_markup(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Ends well.", "Ends well."),
        ("It was so. For example:", "It was so."),
        ("Uses io.open in it", ""),
        ("index(value) -> integer.", ""),
        ('"x" is lower case.', ""),
        ('"Pdb" is the class. (See there.) And', '"Pdb" is the class. (See there.)'),
        ("Title", ""),
    ],
)
def test_sentences_are_whole(text: str, expected: str) -> None:
    assert whole_sentences(text) == expected


def test_what_is_no_prose() -> None:
    assert is_prose("Return the iterator that len() and next() work on, or None.")
    for text in (
        "Then x = a[i] + f(b, c) * 2 / (d - 1).",
        "Run >>> first of all things here.",
        "Write to someone at guido@python.org about it.",
        "See https://python.org for more.",
        "Licensed to PSF under a Contributor Agreement.",
        "Changed in version 3.7: it may be left out.",
    ):
        assert not is_prose(text), text


def test_copies_are_left_out() -> None:
    seen: set[str] = set()
    assert is_new("Return the number of bytes in the buffer of this object.", seen)
    assert not is_new("Return the  number of (bytes) in the Buffer of 2 other files.", seen)
    assert not is_new("Only seven words are too few here.", seen)
    sentence = "The first of two texts has a sentence that both of them hold."
    other = "No other paragraph of this text looks anything like this one does."
    assert prose([sentence, f"{other}\n\n{sentence}"], set()) == f"{sentence}\n\n{other}"
