"""JSON is read field by field, and a wrong field is named."""

from __future__ import annotations

from typing import Any

import pytest

from minitx.system.errors import UserError
from minitx.system.fields import Fields, parse_json

ODD: list[Any] = [None, True, -1, 10**400, 1e308, float("nan"), float("inf"), "x", [], {}, [[[[[[[[1]]]]]]]], 2.5]


def test_what_fits_is_read() -> None:
    fields = Fields({"step": 3, "loss": 1.5, "name": "é", "logs": {"a.jsonl": {"bytes": 7}}, "pair": [1, 2]}, "a.json")
    assert fields.whole("step") == 3 and fields.number("loss") == 1.5 and fields.number("step") == 3.0
    assert fields.text("name") == "é" and fields.has("name") and not fields.has("other")
    logs = fields.inside("logs", dict)
    assert list(logs) == ["a.jsonl"] and logs.inside("a.jsonl", dict).whole("bytes") == 7
    pair = fields.inside("pair", list, 2, 2)
    assert len(pair) == 2 and [pair.whole(i) for i in pair] == [1, 2]


@pytest.mark.parametrize("value", ODD)
def test_what_does_not_fit_is_named(value: Any) -> None:
    fields = Fields({"logs": {"bytes": value}}, "a.json").inside("logs", dict)
    for read in (lambda: fields.whole("bytes"), lambda: fields.text("bytes", "[0-9a-f]+", "a checksum")):
        with pytest.raises(UserError, match=r"a\.json is damaged: logs\.bytes is .*, but a .* was expected\."):
            read()
    if value != 2.5:
        with pytest.raises(UserError, match=r"logs\.bytes is .*, but a number from 0 "):
            fields.number("bytes")
    for kind in (dict, list):
        with pytest.raises(UserError, match=r"logs\.bytes"):
            fields.inside("bytes", kind, 1, 1).inside(0, list).inside(0, list, 2, 2)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(UserError, match="step is missing, but a whole number from 0 to 9 was expected"):
        Fields({}, "a.json").whole("step", 0, 9)
    with pytest.raises(UserError, match="its content is 3"):
        Fields(3, "a.json")


@pytest.mark.parametrize("text", [b"[" * 100_000, b"9" * 5000, b"\xff", b"", b"{"])
def test_what_is_no_json_is_refused(text: bytes) -> None:
    with pytest.raises(UserError, match=r"^a\.json is damaged: it is not JSON\.$"):
        parse_json(text, "a.json")
