"""Matplotlib figures off screen: no window, no pyplot, no global state."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from minitx.system.files import write_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches; its layout keeps labels and axes apart."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save_picture(figure: Figure, name: str | Path) -> None:
    """Save a figure in the format of the suffix of `name`; raises UserError where it cannot be written."""
    write_output(name, picture(figure, Path(name).suffix[1:]))


def picture(figure: Figure, form: str = "png") -> bytes:
    """A figure as the content of a file."""
    drawn = io.BytesIO()
    figure.savefig(drawn, format=form, dpi=120)
    return drawn.getvalue()
