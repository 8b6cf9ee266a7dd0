"""Pictures of attention patterns for TensorBoard's Images tab.

Matplotlib draws the labels and titles of a probe once, as a `Frame`. A picture then only fills in the cells of every
head. Pixels are indices of `palette`. This module imports matplotlib, so import it only to draw.
"""

import functools
import io
import math
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray
from PIL import Image

from minitx.system.text import visible

LEVELS, WHITE = 224, 255
"""Colours of the scale; the palette's other 32 entries are greys for letters, black to white, so white comes last."""
RAMP = ("#f4f6fb", "#d3e0f2", "#93b8e0", "#4a86c8", "#1f559f", "#0b2a5e")
"""The scale of patterns, 0 to 1: that of the Attention tab on white, RAMPS.light of plugin/static."""
DPI = 128  # a power of two, so that whole pixels stay whole when matplotlib counts in inches
LABEL_SIZE, TITLE_SIZE, MAX_LABEL = 11, 14, 90  # pixels: height of letters, and width of a token's label
FONTS: tuple[str, ...] = ("DejaVu Sans", "Noto Sans CJK JP", "Arial Unicode MS", "Microsoft YaHei", "Malgun Gothic")
FONTS += ("Noto Emoji", "Segoe UI Symbol", "Unifont")
"""In order of preference. The first comes with matplotlib; the others are used where they are installed."""
MARGIN, GAP, BAR = 12, 18, 60  # pixels around the picture, between heads, and for the colour bar with its numbers
MAX_WIDTH = 980  # pixels that TensorBoard shows on a small laptop; more heads go into further rows

Pixels = NDArray[np.uint8]
Texts = Sequence[tuple[float, float, str, dict[str, Any]]]  # row, column (pixels), line of text, matplotlib's alignment


class Frame:
    """A picture of a probe without its cells: a labelled square for each head, the colour bar, and `caption`.

    A cell is 1 to 24 pixels wide. Up to 33 tokens all are labelled; of a longer text only some are.
    """

    def __init__(self, labels: Sequence[str], n_head: int, caption: str = "") -> None:
        seq = len(labels)
        self.cell = max(1, min(24, max(300 // seq, min(LABEL_SIZE, 372 // seq))))
        side, every = self.cell * seq, math.ceil((LABEL_SIZE + 1) / self.cell) if self.cell < LABEL_SIZE else 1
        shown = {(place + 0.5) * self.cell: fit(labels[place], MAX_LABEL) for place in range(0, seq, every)}
        label_width = math.ceil(max(map(text_width, shown.values())))
        left, top = MARGIN + label_width + 4, MARGIN + 58
        pitch_x, pitch_y = max(side, 48) + GAP, side + 4 + label_width + GAP + 16
        rows = math.ceil(n_head / max(1, (MAX_WIDTH - left - BAR) // pitch_x))
        columns = math.ceil(n_head / rows)
        bar_x, bar_height = left + columns * pitch_x, max(side, 80)
        width = max(bar_x + BAR, 420)
        self.panels = [(top + head // columns * pitch_y, left + head % columns * pitch_x) for head in range(n_head)]
        """Row and column of the upper left pixel of each head."""

        texts: list[tuple[float, float, str, dict[str, Any]]] = [(MARGIN + 26, MARGIN, fit(caption, width - 24), {})]
        texts += [(top + (1 - share) * bar_height, bar_x + 18, f"{share:g}", {}) for share in (0, 0.5, 1)]
        texts += [(y - 9, x, f"head {head}", {}) for head, (y, x) in enumerate(self.panels)]
        upright = {"ha": "right", "rotation": 90, "rotation_mode": "anchor"}
        for place, label in shown.items():
            texts += [(top + side + 4, left + place, label, upright), (top + place, left - 4, label, {"ha": "right"})]
        self.base = draw_texts(max(top + rows * pitch_y - GAP - 16, top + bar_height) + MARGIN, width, texts)
        keys = self.base[top + side + 2 : top + side + label_width + 8, left - 8 : left + side + 8]
        queries = self.base[top - 8 : top + side + 8, MARGIN : left - 2]
        for y, x in self.panels[1:]:  # copies of the first labels, because matplotlib takes 1 ms for each
            self.base[y + side + 2 : y + side + label_width + 8, x - 8 : x + side + 8] = keys
            if x == left:
                self.base[y - 8 : y + side + 8, MARGIN : x - 2] = queries
        self.base[top : top + bar_height, bar_x : bar_x + 12] = colour_index(np.linspace(1, 0, bar_height))[:, None]

    def picture(self, layer: int, step: int, patterns: NDArray[np.floating[Any]]) -> bytes:
        """A PNG of `patterns` (head, query, key) on the fixed scale from 0 to 1; keys after the query stay white."""
        pixels, x = self.base.copy(), MARGIN
        for title in (title_pixels(f"layer {layer}"), title_pixels(f"step {step}")):
            pixels[MARGIN - 4 : MARGIN - 4 + title.shape[0], x : x + title.shape[1]] = title
            x += title.shape[1] + GAP
        levels = np.where(np.tri(patterns.shape[-1], dtype=bool), colour_index(patterns), np.uint8(WHITE))
        for (y, x), cells in zip(self.panels, levels.repeat(self.cell, axis=1).repeat(self.cell, axis=2), strict=True):
            pixels[y : y + cells.shape[0], x : x + cells.shape[1]] = cells
        image = Image.fromarray(pixels, mode="P")
        image.putpalette(palette().tobytes())
        buffer = io.BytesIO()
        image.save(buffer, "PNG", compress_level=3)
        return buffer.getvalue()


def by_word(
    labels: Sequence[str], patterns: NDArray[np.floating[Any]], words: Sequence[int]
) -> tuple[list[str], NDArray[np.floating[Any]]]:
    """Labels and patterns (…, query, key) of words, by the first token of each.

    The row of a word is the mean over its tokens, its column their sum, so that rows still add up to 1.
    """
    ends = [*words[1:], len(labels)]
    joined = ["".join(labels[start:end]) for start, end in zip(words, ends, strict=True)]
    rows = np.add.reduceat(np.add.reduceat(patterns, words, axis=-1), words, axis=-2)
    return [label.lstrip("␣") or label for label in joined], rows / np.subtract(ends, words)[:, None]


def colour_index(weights: NDArray[np.floating[Any]]) -> Pixels:
    """Pattern weights, 0 to 1 → their index in `palette`; a NaN becomes white."""
    levels = np.clip(weights, 0, 1) * (LEVELS - 1)
    return np.where(np.isnan(levels), WHITE, np.nan_to_num(levels).round()).astype(np.uint8)


@functools.cache
def palette() -> Pixels:
    """(256, 3): `RAMP` from 0 to 1 in `LEVELS` colours, then greys from black to white."""
    stops = np.array([list(bytes.fromhex(colour[1:])) for colour in RAMP])
    places = np.linspace(0, len(RAMP) - 1, LEVELS)
    colours = np.stack([np.interp(places, range(len(RAMP)), channel) for channel in stops.T], axis=1)
    greys = np.linspace(0, 255, 256 - LEVELS).round().astype(np.uint8)
    return np.concatenate([colours.round().astype(np.uint8), np.repeat(greys[:, None], 3, axis=1)])


def draw_texts(height: int, width: int, texts: Texts, size: int = LABEL_SIZE) -> Pixels:
    """`texts` on white."""
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    for y, x, text, alignment in texts:
        style = {"va": "center_baseline", "color": "#1e1e1e", "fontproperties": font(size), **alignment}
        figure.text(x / width, 1 - y / height, text, parse_math=False, **style)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    grey = np.asarray(canvas.buffer_rgba())[:, :, 0]
    return (LEVELS + np.round(grey / 255 * (WHITE - LEVELS))).astype(np.uint8)


@functools.lru_cache(maxsize=256)
def title_pixels(text: str) -> Pixels:
    """A title, kept for the next picture: all layers share the step, and all steps the layer."""
    width = math.ceil(text_width(text, TITLE_SIZE)) + 2
    return draw_texts(TITLE_SIZE + 6, width, [(TITLE_SIZE / 2 + 3, 0, text, {})], TITLE_SIZE)


@functools.cache
def installed_fonts(names: tuple[str, ...]) -> dict[str, frozenset[int]]:
    """Those of `names` that this machine has, each with the code points that it can show."""
    fonts = {}
    for name in names:
        with suppress(ValueError):
            file = findfont(FontProperties(family=[name]), fallback_to_default=False)
            fonts[name] = frozenset(FT2Font(file).get_charmap())
    return fonts


def font(size: int) -> FontProperties:
    """The installed fonts; matplotlib takes the first that has a character. `size` is in pixels."""
    return FontProperties(family=[*installed_fonts(FONTS)], size=size * 72 / DPI)


def text_width(text: str, size: int = LABEL_SIZE) -> float:
    """Pixels that a line of text takes."""
    return RendererAgg(1, 1, DPI).get_text_width_height_descent(text, font(size), ismath=False)[0]


def fit(text: str, width: int) -> str:
    """`text` cut to `width` pixels, with codes such as \\u65e5 for characters that no installed font can show."""
    known = frozenset().union(*installed_fonts(FONTS).values())
    text = "".join(c if ord(c) in known else c.encode("unicode_escape").decode() for c in visible(text, ""))
    while (taken := text_width(text)) > width:
        text = text[: max(1, min(len(text) - 2, int(len(text) * width / taken)))] + "…"
    return text
