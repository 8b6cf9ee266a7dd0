"""Text for a terminal: one line, control characters made visible, warnings."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Sequence


def one_line(text: object) -> str:
    """`text` on one line, with whatever could move a terminal's cursor written as a code such as \\x1b."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[object]], left: Sequence[bool] | None = None) -> str:
    """A Markdown table of fixed width, which reads well in a terminal too.

    left: the columns that are aligned left; by default the first one.
    """
    cells = [[str(cell) for cell in row] for row in (columns, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    left = [i == 0 for i in range(len(columns))] if left is None else left
    rule = ["-" * width if at_left else "-" * (width - 1) + ":" for width, at_left in zip(widths, left, strict=True)]

    def line(row: Sequence[str]) -> str:
        parts = zip(row, widths, left, strict=True)
        return "| " + " | ".join(cell.ljust(w) if at_left else cell.rjust(w) for cell, w, at_left in parts) + " |"

    return "\n".join(map(line, [cells[0], rule, *cells[1:]]))


def warn(sentence: str) -> None:
    """Tell a person what is odd but no reason to stop."""
    print(f"warning: {one_line(sentence)}", file=sys.stderr)


def visible(text: str, keep: str = "\n\t") -> str:
    """`text` with characters that show nothing, or move others about, as the codes that Python writes them with.

    Spaces of every kind stay, and so do the joiners that scripts and emoji are written with and what is in `keep`.
    """
    kept = keep + "\u200c\u200d"
    return "".join(c if c in kept or c.isprintable() or unicodedata.category(c) == "Zs" else _escape(c) for c in text)


def _escape(text: str) -> str:
    """Such as \\n, \\x1b, \\u202e; also of lone surrogates, which cannot be stored."""
    return text.encode("unicode_escape").decode("ascii")
