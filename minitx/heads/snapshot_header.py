"""Checks the header of a snapshot, which a stranger may have made: the type and the size of every entry."""

from collections.abc import Callable
from typing import Any

from minitx.system.fields import LARGEST, Fields

MAX_HEADS, MAX_TOKENS, MAX_PROBES, MAX_LINKS, MAX_STEP = 4096, 8192, 256, 1000, 10**12


def checked_header(content: Any, *, has_checksums: bool) -> dict[str, Any]:
    """The known entries of a header, all of the right type and size; raises UserError otherwise."""
    header = Fields(content, "The header of this snapshot")
    layers, heads = header.whole("layers", 1, MAX_HEADS), header.whole("heads", 1, MAX_HEADS)
    count = layers * heads
    header.expect(count <= MAX_HEADS, "heads", f"at most {MAX_HEADS} in all layers together")
    scores = header.inside("scores", dict) if header.has("scores") else Fields({}, "")
    probes = header.inside("probes", list, 1, MAX_PROBES)
    return {
        "step": header.whole("step", most=MAX_STEP),
        "run": header.text("run") if header.has("run") else None,
        "written": header.number("written") if header.has("written") else 0,
        "layers": layers,
        "heads": heads,
        "scores": {name: _values(scores, name, _is_score, count, count) for name in scores},
        "chance": _values(header, "chance", _is_score, kind=dict) if header.has("chance") else {},
        "roles": _values(header, "roles", _is_text, most=count) if header.has("roles") else [],
        "probes": [_checked_probe(probes.inside(i, dict), count, has_checksums) for i in probes],
    }


def _checked_probe(probe: Fields, count: int, has_checksums: bool) -> dict[str, Any]:
    tokens = _values(probe, "tokens", _is_text, 1, MAX_TOKENS)
    links = probe.inside("links", list, most=MAX_LINKS) if probe.has("links") else Fields([], "")
    checked: dict[str, Any] = {"text": probe.text("text"), "tokens": tokens, "links": []}
    for link in (links.inside(i, dict) for i in links):
        ends = {end: _span(link.inside(end, list, 2, 2), len(tokens)) for end in ("query", "key")}
        checked["links"].append({"name": link.text("name"), **ends})
    if probe.has("whole"):
        checked["whole"] = _values(probe, "whole", lambda head: type(head) is int and 0 <= head < count, most=count)
    if has_checksums:
        checked["checksums"] = _values(probe, "checksums", lambda value: type(value) is int, 1, count + 1)
    return checked


def _values(
    fields: Fields, name: str, is_right: Callable[[Any], bool], least: int = 0, most: int = MAX_HEADS, kind: Any = list
) -> Any:
    """A list or an object, checked at once and not value by value: headers are read often."""
    values = fields.inside(name, kind, least, most).content.values()
    fields.expect(all(map(is_right, values)), name, "the right type of every entry")
    return fields.content[name]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_score(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and -LARGEST <= value <= LARGEST)


def _span(ends: Fields, seq: int) -> list[int]:
    return [start := ends.whole(0, 0, seq - 1), ends.whole(1, start + 1, seq)]
