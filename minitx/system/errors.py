"""Errors that a person can put right, and hints for mistyped names."""

from __future__ import annotations

import difflib


class UserError(Exception):
    """Something a person can put right. The message is one sentence: the value, what was expected, what to do."""


def require(condition: bool, message: str) -> None:
    """Raise `UserError(message)` unless `condition` holds."""
    if not condition:
        raise UserError(message)


def nearest(name: str, names: list[str]) -> str:
    """The entry of `names` most like `name`, as a hint " (did you mean …?)"; empty when nothing is close.

    First comes the same name in another section, then a name that was cut short. The dashes before options, which are
    in all of them, make none alike.
    """
    by_word, word = {each.lstrip("-"): each for each in names}, name.lstrip("-")
    elsewhere = [each for each in by_word if each.rpartition(".")[2] == word.rpartition(".")[2]]
    longer = [each for each in by_word if each.startswith(word) and len(word) > 2]
    close = elsewhere or longer or difflib.get_close_matches(word, by_word, n=1)
    return f" (did you mean {by_word[close[0]]}?)" if close else ""
