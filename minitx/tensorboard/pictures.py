"""Pictures of attention patterns, put together from pixels.

A probe's labels are drawn once (`Canvas`); the picture of a layer at a step then only fills in the cells of its heads.
"""

from __future__ import annotations

import functools
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from minitx.system.text import escape, visible

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont

LEVELS = 224
"""Colours of the scale; the palette's other 32 entries are greys for lines and letters, black to white."""
WHITE = 255
"""Index of the white that blank cells and the background have."""
INK = 30
"""Brightness of letters."""
FONT_SIZE = 11
MAX_LABEL = 14
"""Characters of a token that are shown."""
MARGIN, GAP, MIN_BAR = 12, 18, 80
MAX_WIDTH = 980
"""Pixels that TensorBoard shows of a picture on a small laptop; more heads go into further rows."""


class Canvas:
    """A blank picture of a probe: one square panel for each head, with labels, in indices of `palette`.

    A cell is 24 pixels wide at most and one at least: up to 33 tokens all are labelled, of more only some are.
    """

    def __init__(self, labels: list[str], n_head: int) -> None:
        self.labels, self.n_head = labels, n_head
        seq = len(labels)
        self.cell = max(1, min(24, max(300 // seq, min(FONT_SIZE, 372 // seq))))
        side = self.cell * seq
        names = _label_strip(labels, self.cell)  # (side, width): queries as they stand, keys turned upright
        left, top = MARGIN + names.shape[1] + 4, MARGIN + 26
        pitch_x, pitch_y = max(side, 48) + GAP, 16 + side + 4 + names.shape[1] + GAP
        bar = 60
        rows = math.ceil(n_head / max(1, (MAX_WIDTH - left - bar) // pitch_x))
        columns = math.ceil(n_head / rows)
        width = max(left + columns * pitch_x + bar, 420)
        height = max(top + rows * pitch_y - GAP, top + 16 + MIN_BAR) + MARGIN
        self.base = np.full((height, width), WHITE, dtype=np.uint8)
        self.panels = []
        for head in range(n_head):
            y, x = top + head // columns * pitch_y + 16, left + head % columns * pitch_x
            self.panels.append((y, x))
            self._write(y - 16, x, f"head {head}")
            self._paste(y + side + 4, x, np.rot90(names))
            if head % columns == 0:
                self._paste(y, x - 4 - names.shape[1], names)
        self._colour_bar(top + 16, left + columns * pitch_x, max(side, MIN_BAR))
        self.shape = self.base.shape

    def picture(self, title: str, patterns: NDArray[np.floating[Any]]) -> bytes:
        """A PNG of `patterns` (head, query, key) on the fixed scale from 0 to 1; keys after the query stay white."""
        from PIL import Image

        pixels = self.base.copy()
        strip = _text(_fit(title, self.shape[1] - 2 * MARGIN, FONT_SIZE + 2), FONT_SIZE + 2)
        pixels[MARGIN - 4 : MARGIN - 4 + strip.shape[0], MARGIN : MARGIN + strip.shape[1]] = strip
        seq = len(self.labels)
        level = np.where(np.tril(np.ones((seq, seq), dtype=bool)), colour_index(patterns), np.uint8(WHITE))
        side = self.cell * seq
        for (y, x), cells in zip(self.panels, level, strict=True):
            pixels[y : y + side, x : x + side] = cells.repeat(self.cell, axis=0).repeat(self.cell, axis=1)
        image = Image.fromarray(pixels, mode="P")
        image.putpalette(palette().tobytes())
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=3)
        return buffer.getvalue()

    def _write(self, y: int, x: int, text: str) -> None:
        self._paste(y, x, _text(text, FONT_SIZE))

    def _paste(self, y: int, x: int, pixels: NDArray[np.uint8]) -> None:
        self.base[y : y + pixels.shape[0], x : x + pixels.shape[1]] = pixels

    def _colour_bar(self, y: int, x: int, height: int) -> None:
        """The scale, 1 at the top."""
        self._paste(y, x, np.repeat(colour_index(np.linspace(1, 0, height))[:, None], 12, axis=1))
        for value in (0, 0.5, 1):
            tick = _text(f"{value:g}", FONT_SIZE)
            middle = y + round((1 - value) * (height - 1))
            self.base[middle, x + 12 : x + 16] = LEVELS
            self._paste(middle - tick.shape[0] // 2, x + 19, tick)


def colour_index(weights: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Pattern weights, 0 to 1 → their index in `palette`; a NaN becomes white."""
    levels = np.clip(weights, 0, 1) * (LEVELS - 1)
    return np.where(np.isnan(levels), WHITE, np.nan_to_num(levels).round()).astype(np.uint8)


@functools.cache
def palette() -> NDArray[np.uint8]:
    """(256, 3): viridis from 0 to 1 in `LEVELS` colours, then greys from black to white."""
    import matplotlib

    colours = matplotlib.colormaps["viridis"](np.linspace(0, 1, LEVELS), bytes=True)[:, :3]
    greys = np.linspace(0, 255, 256 - LEVELS).round().astype(np.uint8)
    return np.concatenate([colours, np.repeat(greys[:, None], 3, axis=1)])


FALLBACK_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "msyh.ttc",
    "malgun.ttf",
    "NotoEmoji-Regular.ttf",
    "seguisym.ttf",
    "unifont.otf",
)
"""Asked in turn, wherever the system keeps its fonts, for what DejaVu Sans (it comes with matplotlib) cannot show."""


@functools.cache
def _font(name: str, size: int) -> FreeTypeFont | None:
    """A font by its file name, or None where this machine lacks it."""
    from PIL import ImageFont

    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@functools.cache
def _characters(path: str) -> frozenset[int]:
    """The code points that the font at `path` can show."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(path).get_charmap())


def _drawable(text: str, size: int) -> tuple[str, FreeTypeFont]:
    """`text` with a font that shows all of it; where there is none, with codes for the characters that are missing."""
    import matplotlib

    dejavu = _font(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)
    assert dejavu is not None
    missing = {ord(character) for character in text} - _characters(str(dejavu.path))
    if not missing:
        return text, dejavu
    for name in FALLBACK_FONTS:
        font = _font(name, size)
        if font is not None and missing <= _characters(str(font.path)):
            return text, font
    return "".join(escape(c) if ord(c) in missing else c for c in text), dejavu


def _text(text: str, size: int) -> NDArray[np.uint8]:
    """One line of text (height, width) in indices of `palette`; visible() and nothing else is done to it."""
    from PIL import Image, ImageDraw

    shown, font = _drawable(visible(text, ""), size)
    image = Image.new("L", (math.ceil(font.getlength(shown)) + 2, size + 4), 255)
    ImageDraw.Draw(image).text((0, (size + 4) / 2), shown, fill=INK, font=font, anchor="lm")
    return _greys(image)


def _label_strip(labels: list[str], cell: int) -> NDArray[np.uint8]:
    """Labels (len(labels) * cell, width) under each other, each beside its cell; thinned where they would touch."""
    from PIL import Image, ImageDraw

    every = math.ceil(FONT_SIZE / cell)
    shown = []
    for label in labels[::every]:
        text = visible(label, "").replace(" ", "▁")
        shown.append(_drawable(text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + "…", FONT_SIZE))
    width = max(math.ceil(font.getlength(text)) for text, font in shown) + 2
    image = Image.new("L", (width, len(labels) * cell), 255)
    draw = ImageDraw.Draw(image)
    for row, (text, font) in enumerate(shown):
        draw.text((width - 1, (row * every + 0.5) * cell), text, fill=INK, font=font, anchor="rm")
    return _greys(image)


def _greys(image: Any) -> NDArray[np.uint8]:
    """A PIL image of brightness → indices of the greys in `palette`."""
    return (LEVELS + np.round(np.asarray(image) / 255 * (WHITE - LEVELS))).astype(np.uint8)


def _fit(text: str, width: int, size: int) -> str:
    """`text`, shortened with … to `width` pixels."""
    shown, font = _drawable(visible(text, ""), size)
    while font.getlength(shown) > width:
        shown = shown[: max(1, min(len(shown) - 2, int(len(shown) * width / font.getlength(shown))))] + "…"
    return shown
