"""Words of a text that is cut into tokens: where each word begins, and a label that can be read for every token.

Both work on the bytes of the tokens, because a token may be a part of a character.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from unicodedata import category

SYMBOLS = str.maketrans({"\n": "↵", "\t": "⇥", "\r": "␍", " ": "␣", "\u2581": "␣"})
PART = "·"
"""The label of a byte token before the last one of a character."""
IDEOGRAPHS = re.compile("[\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
"""Characters that are words by themselves: Chinese ones, hiragana and katakana."""
WORD = re.compile(r" ?(?:w[wm]*(?:jw[wm]*)*|[cjpm]m*(?:zpm*)*)|.", re.DOTALL)
"""A word in the kinds that `_kind` gives: letters with inner apostrophes or hyphens, or one other character with its
marks. The space before it belongs to it. Other white space is a word by itself."""


def word_starts(pieces: Sequence[bytes]) -> list[int]:
    """The first token of every word; `pieces` are the bytes of each token.

    A token belongs to the word in which its first byte lies that is no space. A token without bytes is a word.
    """
    text = b"".join(pieces).decode("utf-8", "surrogateescape")  # a cut text may end within a character
    kinds = "".join(map(_kind, text))
    ends = [len(part.encode("utf-8", "surrogateescape")) for part in text]
    word_of_byte = []
    for number, match in enumerate(WORD.finditer(kinds)):
        word_of_byte += [number] * sum(ends[match.start() : match.end()])
    words, place = [], 0
    for number, piece in enumerate(pieces):
        inner = piece.lstrip(b" ")
        at = place + len(piece) - len(inner) if inner else place
        words.append(word_of_byte[at] if piece else -1 - number)
        place += len(piece)
    return [0] * bool(words) + [start for start, (a, b) in enumerate(pairwise(words), 1) if a != b]


def spelled_out(pieces: Sequence[bytes]) -> list[str]:
    """The words that tokens, `pieces` their bytes, spell letter by letter, or nearly: no token is made for them."""
    starts, found = word_starts(pieces), dict[str, None]()
    for start, end in pairwise([*starts, len(pieces)]):
        word = b"".join(pieces[start:end]).decode("utf-8", "replace").strip(" ")
        is_spelled = sum(map(str.isalpha, word)) > 1 and 4 * (end - start) >= 3 * len(word)
        found |= {word: None} if is_spelled else {}
    return list(found)


def _kind(character: str) -> str:
    """One letter: w of words, c Chinese or Japanese, m mark, z joiner of emoji, j of "don't" and "well-known", p other.

    A space stays a space, and other white space becomes a line break.
    """
    if character in " '’-\u200d":
        return {" ": " ", "\u200d": "z"}.get(character, "j")
    if character.isspace():
        return "\n"
    if IDEOGRAPHS.match(character):
        return "c"
    if category(character)[0] == "M" or "\U0001f3fb" <= character <= "\U0001f3ff":  # skin tones of emoji
        return "m"
    return "w" if character.isalnum() or character == "_" else "p"


def labels(pieces: Sequence[bytes]) -> list[str]:
    """A label for each token, from its bytes.

    A character of several tokens of one byte stands on the last of them, after "·". Bytes of no character are written
    as <0xE2>.
    """
    made: list[str] = []
    while len(made) < len(pieces):
        part = pieces[len(made)]
        size = 1 + sum(part[:1] >= lead for lead in (b"\xc0", b"\xe0", b"\xf0"))  # bytes of a character, by its first
        parts = pieces[len(made) : len(made) + size] if len(part) == 1 else [part]
        try:
            made += [PART] * (len(parts) - 1) + [label(b"".join(parts).decode("utf-8"))]
        except UnicodeDecodeError:
            made.append("".join(f"<0x{byte:02X}>" for byte in part))
    return made


def label(text: str) -> str:
    """`text` with ␣ for a space, ↵ for a line break, and \\x1b for a control character."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text.translate(SYMBOLS))
