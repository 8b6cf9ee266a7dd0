"""JSON of a file, read field by field: an error names the file, the field and what was expected."""

import json
import math
import re
import reprlib
from collections.abc import Iterator
from typing import Any

from minitx.system.errors import UserError

MISSING = type("Missing", (), {"__repr__": lambda _: "missing"})()
LARGEST = 10**15
"""Of every number: far above any count of tokens, seconds or bytes, and exact as a float."""


class Fields:
    """An object or a list of JSON from `origin`, such as a file. Reading a wrong or missing field raises UserError."""

    def __init__(self, content: Any, origin: str, path: str = "") -> None:
        if not isinstance(content, dict | list):
            raise UserError(f"{origin} is damaged: {path or 'its content'} is {reprlib.repr(content)}, not a table.")
        self.content: dict[Any, Any] = content if isinstance(content, dict) else dict(enumerate(content))
        self.origin, self.path = origin, path

    def __iter__(self) -> Iterator[Any]:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)

    def has(self, name: Any) -> bool:
        """Whether the field is there and not null."""
        return self.content.get(name) is not None

    def whole(self, name: Any, least: int = 0, most: int = LARGEST) -> int:
        """A whole number; True and False are none."""
        value = self.content.get(name, MISSING)
        self.expect(type(value) is int and least <= value <= most, name, f"a whole number from {least} to {most}")
        return int(value)

    def number(self, name: Any, least: float = 0, most: float = LARGEST) -> float:
        """A finite number."""
        value = self.content.get(name, MISSING)
        is_number = type(value) in (int, float) and least <= value <= most and math.isfinite(value)
        self.expect(is_number, name, f"a number from {least} to {most}")
        return float(value)

    def number_or_nan(self, name: Any) -> float:
        """A finite number, as large as a loss or a gradient may become; NaN for null, NaN and infinity."""
        value = self.content.get(name, MISSING)
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            return math.nan
        return self.number(name, -1e39, 1e39)

    def numbers(self, name: Any, least: int = 1, most: int = 10**6) -> list[float]:
        """A list of `least` to `most` numbers; NaN for null, NaN and infinity."""
        inside = self.inside(name, list, least, most)
        return [inside.number_or_nan(place) for place in inside]

    def text(self, name: Any, pattern: str = r"[\s\S]*", expected: str = "a text") -> str:
        """A text that fits the regular expression `pattern`, which `expected` describes."""
        value = self.content.get(name, MISSING)
        self.expect(isinstance(value, str) and re.fullmatch(pattern, value) is not None, name, expected)
        return str(value)

    def inside(
        self, name: Any, kind: type[dict[Any, Any]] | type[list[Any]], least: int = 0, most: int = 10**6
    ) -> "Fields":
        """A nested object (`kind` dict) or list, with `least` to `most` entries."""
        value = self.content.get(name, MISSING)
        expected = f"{'an object' if kind is dict else 'a list'} of {least} to {most} entries"
        self.expect(isinstance(value, kind) and least <= len(value) <= most, name, expected)
        return Fields(value, self.origin, self.label(name))

    def expect(self, condition: bool, name: Any, expected: str) -> None:
        """Raise UserError, which says that `name` is not what was `expected`, unless `condition` holds."""
        if not condition:
            value = reprlib.repr(self.content.get(name, MISSING))
            raise UserError(f"{self.origin} is damaged: {self.label(name)} is {value}, but {expected} was expected.")

    def label(self, name: Any) -> str:
        """The path of a field, such as logs.metrics.jsonl.bytes."""
        return f"{self.path}.{name}".removeprefix(".")[:100]


def parse_json(content: bytes | str, origin: str) -> Any:
    """The value that JSON from `origin` holds; raises UserError for anything else."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError, OverflowError) as error:  # ValueError also of bytes and of 5,000 digits
        raise UserError(f"{origin} is damaged: it is not JSON.") from error
