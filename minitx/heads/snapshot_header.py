"""Checks the header of a snapshot, which a stranger may have made: the type and the size of every entry."""

from collections.abc import Callable
from operator import lt
from typing import Any

from minitx.system.fields import LARGEST, Fields

MAX_HEADS, MAX_TOKENS, MAX_PROBES, MAX_LINKS, MAX_STEP, MAX_PREDICTED = 4096, 8192, 256, 1000, 10**12, 20


def checked_header(content: Any, *, has_checksums: bool) -> dict[str, Any]:
    """The known entries of a header, all of the right type and size; raises UserError otherwise."""
    header = Fields(content, "The header of this snapshot")
    layers, heads = header.whole("layers", 1, MAX_HEADS), header.whole("heads", 1, MAX_HEADS)
    count = layers * heads
    header.expect(count <= MAX_HEADS, "heads", f"at most {MAX_HEADS} in all layers together")
    probes = header.inside("probes", list, 1, MAX_PROBES)
    return {
        "step": header.whole("step", most=MAX_STEP),
        "run": header.text("run") if header.has("run") else None,
        "written": header.number("written") if header.has("written") else 0,
        "layers": layers,
        "heads": heads,
        "scored_on": header.text("scored_on") if header.has("scored_on") else "",
        **_checked_scores(header, count),
        "probes": [_checked_probe(probes.inside(i, dict), count, has_checksums) for i in probes],
    }


def _checked_scores(fields: Fields, count: int) -> dict[str, Any]:
    """Scores, chance and roles of `count` heads; empty where they are missing."""
    scores = fields.inside("scores", dict) if fields.has("scores") else Fields({}, "")
    return {
        "scores": {name: _values(scores, name, _is_score, count, count) for name in scores},
        "chance": _values(fields, "chance", _is_score, kind=dict) if fields.has("chance") else {},
        "roles": _values(fields, "roles", _is_text, most=count) if fields.has("roles") else [],
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
    checked["words"] = _checked_words(probe, len(tokens)) if probe.has("words") else []
    checked["dropped"] = probe.whole("dropped") if probe.has("dropped") else 0
    checked["predictions"] = _checked_predictions(probe, len(tokens)) if probe.has("predictions") else None
    checked |= _checked_scores(probe, count)
    if has_checksums:
        checked["checksums"] = _values(probe, "checksums", lambda value: type(value) is int, 1, count + 1)
    return checked


def _checked_words(probe: Fields, seq: int) -> list[int]:
    words: list[int] = _values(probe, "words", lambda start: type(start) is int, most=seq)
    are_starts = words[:1] in ([], [0]) and all(map(lt, words, [*words[1:], seq]))
    probe.expect(are_starts, "words", "the first token of every word, in order,")
    return words


def _checked_predictions(probe: Fields, seq: int) -> dict[str, Any]:
    predictions = probe.inside("predictions", dict)
    rows = {name: predictions.inside(name, list, seq, seq) for name in ("tokens", "probabilities")}
    return {
        "tokens": [_values(rows["tokens"], i, _is_text, most=MAX_PREDICTED) for i in range(seq)],
        "probabilities": [
            _values(rows["probabilities"], i, _is_score, len(tokens), len(tokens))
            for i, tokens in rows["tokens"].content.items()
        ],
        "loss": _values(predictions, "loss", _is_score, seq, seq),
        "real": _values(predictions, "real", _is_place, seq, seq) if predictions.has("real") else [None] * seq,
    }


def _values(
    fields: Fields, name: Any, is_right: Callable[[Any], bool], least: int = 0, most: int = MAX_HEADS, kind: Any = list
) -> Any:
    """A list or an object, checked at once and not value by value: headers are read often."""
    values = fields.inside(name, kind, least, most).content.values()
    fields.expect(all(map(is_right, values)), name, "the right type of every entry")
    return fields.content[name]


def _is_place(value: Any) -> bool:
    return value is None or (type(value) is int and 0 <= value < MAX_PREDICTED)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_score(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and -LARGEST <= value <= LARGEST)


def _span(ends: Fields, seq: int) -> list[int]:
    return [start := ends.whole(0, 0, seq - 1), ends.whole(1, start + 1, seq)]
