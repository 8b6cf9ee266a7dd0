"""Errors that a person can put right, and hints for mistyped names."""

import difflib
import math
import operator
import reprlib


class UserError(Exception):
    """Something a person can put right. The message is one sentence: the value, what was expected, what to do."""


def require(condition: bool, message: str) -> None:
    """Raise `UserError(message)` unless `condition` holds."""
    if not condition:
        raise UserError(message)


def require_bounds(settings: object, section: str, names: str, **bounds: float) -> None:
    """Raise `UserError` unless every setting in `names` is None or within `bounds`: at_least, above, at_most, below."""
    tests = {"at_least": operator.ge, "above": operator.gt, "at_most": operator.le, "below": operator.lt}
    words = " and ".join(
        "a finite number" if bound == math.inf else f"{test.replace('_', ' ')} {bound}"
        for test, bound in bounds.items()
    )
    for name in names.split():
        value = getattr(settings, name)
        is_within = value is None or all(tests[test](value, bound) for test, bound in bounds.items())
        require(is_within, f"{section}{name} is {reprlib.repr(value)}, but it must be {words}.")


def nearest(name: str, names: list[str]) -> str:
    """The entry of `names` most like `name`, as a hint " (did you mean …?)"; empty if none is close."""
    by_word, word = {option.lstrip("-"): option for option in names}, name.lstrip("-")
    elsewhere = [other for other in by_word if other.rpartition(".")[2] == word.rpartition(".")[2]]
    longer = [other for other in by_word if other.startswith(word) and len(word) > 2]
    close = elsewhere or longer or difflib.get_close_matches(word, by_word, n=1)
    return f" (did you mean {by_word[close[0]]}?)" if close else ""
