"""The Attention tab of one text as an object that a notebook shows in a cell, without TensorBoard."""

import html
from dataclasses import dataclass
from pathlib import Path

from minitx.system.files import check_page_name, write_output


@dataclass(frozen=True)
class Page:
    """A page of the Attention tab, as `minitx.show` makes it. JupyterLab shows it as a cell's result.

    >>> page = minitx.show(run, "the cat sat")
    >>> page.save("heads.html")
    """

    html: str
    """The whole page: it needs no server and loads nothing."""
    height: int = 720
    """Of the cell, in pixels; its width is that of the notebook."""

    def save(self, path: str | Path) -> None:
        """Write the page to `path`, which ends with .html; raises UserError where it cannot be written."""
        check_page_name(str(path))
        write_output(path, self.html.encode())

    def __repr__(self) -> str:
        return f"Page of {len(self.html):,} characters: a notebook shows it; save(path) writes it."

    def _repr_html_(self) -> str:
        """The page in a frame of its own, so that its style and the notebook's do not meet.

        By the transition the page learns that the notebook's theme has changed.
        """
        style = f"width: 100%; height: {self.height}px; border: 0; border-radius: 10px; transition: color 1ms"
        return f'<iframe title="Attention heads" style="{style}" srcdoc="{html.escape(self.html)}"></iframe>'
