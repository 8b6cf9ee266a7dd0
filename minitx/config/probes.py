"""Probes: texts whose attention patterns are drawn, with links between their words."""

import re
from dataclasses import dataclass
from typing import Any

from minitx.system.errors import require

ProbeSetting = dict[str, str | list[dict[str, str]]]
"""{text, links: [{name, from, to}, …]}, checked by `read_probe`. Without Any, jsonargparse leaves every text a text."""
DEFAULT_PROBES: tuple[ProbeSetting, ...] = (
    {
        "text": "The man saw the astronomer with a telescope.",
        "links": [{"from": "telescope", "to": "man"}, {"from": "telescope", "to": "astronomer"}],
    },
    {
        "text": "The animal didn't cross the street because it was too tired.",
        "links": [
            {"from": "it", "to": "animal"},
            {"from": "it", "to": "street"},
            {"from": "because", "to": "cross"},
            {"from": "cross", "to": "didn't"},
        ],
    },
    {
        "text": "Sara gave Maya her notebook because she trusted her.",
        "links": [
            {"name": "her → Sara", "from": "her#1", "to": "Sara"},
            {"name": "her → Maya", "from": "her#1", "to": "Maya"},
        ],
    },
    {
        "text": "The tired animals slept because they were cold.",
        "links": [{"from": "they", "to": "animals"}, {"from": "animals", "to": "tired"}],
    },
)


@dataclass(frozen=True)
class Link:
    """A later span of a text and an earlier one that it may attend to, both as (start, end) in characters."""

    name: str
    source: tuple[int, int]
    target: tuple[int, int]


@dataclass(frozen=True)
class Probe:
    """A text whose attention patterns are drawn, with the links that are measured in it."""

    text: str
    links: tuple[Link, ...] = ()


def read_probe(setting: str | ProbeSetting) -> Probe:
    """The `Probe` of a text, or of {text, links: [{name, from, to}, …]}; raises `UserError` for anything else.

    `from` and `to` are words as written in the text; `her#2` is the second of several. Attention looks back, so `from`
    is the later one. A link without a name is called "from → to".
    """
    if isinstance(setting, str):
        require(setting != "", "log.probes holds an empty text: take it out.")
        return Probe(setting)
    text: Any = setting.get("text")
    links: Any = setting.get("links", [])
    require(
        setting.keys() <= {"text", "links"} and isinstance(text, str) and bool(text) and isinstance(links, list),
        f"log.probes holds {setting!r}, but a probe is a text or has the keys text and links.",
    )
    checked: list[Link] = []
    for link in links:
        require(
            isinstance(link, dict)
            and {"from", "to"} <= link.keys() <= {"name", "from", "to"}
            and all(isinstance(value, str) and value for value in link.values()),
            f"log.probes has the link {link!r}, but a link has from, to and perhaps a name, all of them texts.",
        )
        source, target = (find_words(str(text), link[end]) for end in ("from", "to"))
        require(
            target[1] <= source[0],
            f"log.probes links {link['from']!r} to {link['to']!r}, but attention looks back: link a later word to an "
            "earlier one.",
        )
        checked.append(Link(link.get("name", f"{link['from']} → {link['to']}"), source, target))
    names = [link.name for link in checked]
    require(len({*names}) == len(names), f"log.probes has two links of one name in {text!r}: name them apart.")
    return Probe(str(text), tuple(checked))


def find_words(text: str, words: str) -> tuple[int, int]:
    """Where `words` are in `text`, as (start, end) in characters; `words#2` means their second place.

    Raises `UserError` if they are missing, or have several places and no number says which.
    """
    plain, _, number = words.rpartition("#")
    if not (plain and number.isdigit()):
        plain, number = words, ""
    places = [match.span() for match in re.finditer(rf"(?<!\w){re.escape(plain)}(?!\w)", text)]
    require(bool(places), f"{plain!r} stands nowhere in {text!r}: write words as they are there.")
    require(
        bool(number) or len(places) == 1,
        f"{plain!r} stands {len(places)} times in {text!r}: say which, as in '{plain}#1'.",
    )
    place = int(number or 1)
    require(1 <= place <= len(places), f"{words!r} is no place: {plain!r} stands {len(places)} times in {text!r}.")
    return places[place - 1]
