"""Errors that a person can put right, and hints for mistyped names."""

import difflib


class UserError(Exception):
    """Something a person can put right. The message is one sentence: the value, what was expected, what to do."""


def require(condition: bool, message: str) -> None:
    """Raise `UserError(message)` unless `condition` holds."""
    if not condition:
        raise UserError(message)


def nearest(name: str, names: list[str]) -> str:
    """The entry of `names` most like `name`, as a hint " (did you mean …?)"; empty if none is close."""
    by_word, word = {option.lstrip("-"): option for option in names}, name.lstrip("-")
    elsewhere = [other for other in by_word if other.rpartition(".")[2] == word.rpartition(".")[2]]
    longer = [other for other in by_word if other.startswith(word) and len(word) > 2]
    close = elsewhere or longer or difflib.get_close_matches(word, by_word, n=1)
    return f" (did you mean {by_word[close[0]]}?)" if close else ""
