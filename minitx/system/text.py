"""Text for a terminal: control characters made visible, warnings, tables."""

import sys
from collections.abc import Sequence
from unicodedata import category


def visible(text: str, keep: str = "\n\t") -> str:
    """`text` with control and format characters as Python's escapes, such as \\x1b or \\u202e.

    Spaces of every kind stay, and so do the joiners that scripts and emoji need, and the characters in `keep`.
    """
    kept = keep + "\u200c\u200d"
    return "".join(c if c in kept or c.isprintable() or category(c) == "Zs" else ascii(c)[1:-1] for c in text)


def one_line(text: object) -> str:
    """`text` on one line: newlines and everything else that could move a terminal's cursor are escaped."""
    return visible(str(text), keep="")


def warn(sentence: str) -> None:
    """Print a warning, on one line of standard error."""
    print(f"warning: {one_line(sentence)}", file=sys.stderr)


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
