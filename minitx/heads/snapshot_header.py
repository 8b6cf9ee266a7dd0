"""Checks the header of a snapshot, which a stranger may have made: the type and the size of every entry."""

import math
from typing import Any

MAX_HEADS, MAX_TOKENS, MAX_PROBES, MAX_LINKS, MAX_STEP = 4096, 8192, 256, 1000, 10**12


def checked_header(header: Any) -> dict[str, Any]:
    """The known entries of a header, all of the right type and size; KeyError, TypeError or ValueError otherwise."""
    layers, heads = _whole(header["layers"], 1, MAX_HEADS), _whole(header["heads"], 1, MAX_HEADS)
    count = _whole(layers * heads, 1, MAX_HEADS)
    scores, chance = dict(header.get("scores", {})), dict(header.get("chance", {}))
    return {
        "step": _whole(header["step"], 0, MAX_STEP),
        "written": _real(header.get("written", 0)),
        "layers": layers,
        "heads": heads,
        "scores": {_text(name): [_score(value) for value in _list(scores[name], count, count)] for name in scores},
        "chance": {_text(name): _score(value) for name, value in chance.items()},
        "roles": [_text(role) for role in _list(header.get("roles", []), 0, count)],
        "probes": [_checked_probe(probe, count) for probe in _list(header["probes"], 1, MAX_PROBES)],
    }


def _checked_probe(probe: Any, count: int) -> dict[str, Any]:
    tokens = [_text(token) for token in _list(probe["tokens"], 1, MAX_TOKENS)]
    links = [
        {"name": _text(link["name"]), **{end: _span(link[end], len(tokens)) for end in ("query", "key")}}
        for link in _list(probe.get("links", []), 0, MAX_LINKS)
    ]
    checked: dict[str, Any] = {"text": _text(probe["text"]), "tokens": tokens, "links": links}
    if "whole" in probe:
        checked["whole"] = [_whole(head, 0, count - 1) for head in _list(probe["whole"], 0, count)]
    return checked


def _expect(condition: bool, value: Any, what: str) -> Any:
    if not condition:
        raise ValueError(f"{value!r:.40} is not {what}")
    return value


def _whole(value: Any, least: int, most: int) -> int:
    """`value`, if it is an int and no bool."""
    return _expect(type(value) is int and least <= value <= most, value, f"a whole number from {least} to {most}")


def _real(value: Any) -> float:
    return _expect(type(value) in (int, float) and math.isfinite(value), value, "a number")


def _score(value: Any) -> float | None:
    return None if value is None else _real(value)


def _text(value: Any) -> str:
    return _expect(isinstance(value, str), value, "a text")


def _list(value: Any, least: int, most: int) -> list[Any]:
    is_list = isinstance(value, list) and least <= len(value) <= most
    return _expect(is_list, value, f"a list of {least} to {most} entries")


def _span(value: Any, seq: int) -> list[int]:
    start, end = _list(value, 2, 2)
    return [_whole(start, 0, seq - 1), _whole(end, start + 1, seq)]
