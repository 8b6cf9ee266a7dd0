"""Prose out of docstrings, comments and reference pages: whole sentences, without markup, none of them twice.

Such texts are half signatures, examples, tables and titles, and the other half often copies itself. A small model
learns the repetition by heart, and little English. So each rule below leaves something out; none writes a word.
"""

import re
from collections.abc import Iterable, Iterator

RUN = 8  # words in a row that come only once
MIN_LETTERS = 0.88  # share of letters and spaces in prose

BULLET = re.compile(r"^ *(?:[-*+o•]|\(?\d+[.)]|\(?[a-z]\)|:\w[^:`\n]*:)(?= )", re.MULTILINE)
QUOTED = re.compile(r"(?::[\w:]+:)?`+([^`]*?)(?:`+|'(?=\W|$))")
STRESSED = re.compile(r"(?<![\w\"*])\*([^ *](?:[^*]*[^ *])?)\*(?![\w\"*])")
FOOTNOTE = re.compile(r" ?\[\d+\]")
WHOLE = re.compile(r"[\"'(]{0,2}[A-Z].*[.!?](?=[\"')]*(?: |$))[\"')]*")
CODE = re.compile(r">>>|@\w|\\|[{}<>=|#$%&^~]{2}|->|::|:(?:class|func):\w|https?:")
NOTICE = re.compile(r"copyright|licen[sc]e|warrant|version \d|\bxxx\b", re.IGNORECASE)


def prose(texts: Iterable[str], seen: set[str]) -> str:
    """The prose in `texts`, a line for each paragraph with an empty one between them; `seen` grows by its runs."""
    kept = []
    for text in texts:
        for paragraph in map(without_markup, paragraphs(text)):
            whole = whole_sentences(paragraph)
            if is_prose(whole) and is_new(whole, seen):
                kept.append(whole)
    return "\n\n".join(kept)


def paragraphs(text: str) -> Iterator[str]:
    """Lines in a row with the same indentation, joined, for line ends say nothing; an item of a list is its own."""
    text = BULLET.sub(lambda bullet: "\n" + " " * len(bullet[0]), text.expandtabs())
    lines: list[str] = []
    depth = 0
    for line in [*text.split("\n"), ""]:
        bare = line.strip()
        if lines and (not bare or len(line) - len(line.lstrip()) != depth):
            yield " ".join(lines)
            lines = []
        if bare:
            lines.append(bare)
            depth = len(line) - len(line.lstrip())


def without_markup(paragraph: str) -> str:
    """Without stars, backticks, roles and footnotes: they say how words look. All quotes and spaces are plain ones."""
    plain = paragraph.replace("’", "'").replace("“", '"').replace("”", '"')
    return " ".join(FOOTNOTE.sub("", STRESSED.sub(r"\1", QUOTED.sub(r"\1", plain))).split())


def whole_sentences(paragraph: str) -> str:
    """From a capital to the last full stop: titles, signatures and grammar have none, and "For example:" goes."""
    whole = WHOLE.match(paragraph)
    return whole[0] if whole else ""


def is_prose(paragraph: str) -> bool:
    """Whether letters outweigh signs, with no line of code, address, licence or list of changes in it."""
    letters = sum(character.isalpha() or character == " " for character in paragraph)
    return letters >= MIN_LETTERS * len(paragraph) and not CODE.search(paragraph) and not NOTICE.search(paragraph)


def is_new(paragraph: str, seen: set[str]) -> bool:
    """Whether it has `RUN` words, and no `RUN` in a row that came before; copies that differ by a name are not new."""
    words = re.findall("[a-z]+", paragraph.lower())
    runs = {" ".join(words[start : start + RUN]) for start in range(len(words) - RUN + 1)}
    is_first = bool(runs) and runs.isdisjoint(seen)
    seen |= runs
    return is_first
