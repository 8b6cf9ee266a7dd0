"""Pictures of patterns: the colour of every cell, and labels that stand where they belong."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from minitx.tensorboard import pictures
from minitx.tensorboard.pictures import Canvas, colour_index, palette


def causal(heads: int, seq: int) -> np.ndarray:
    """Random patterns (head, query, key)."""
    values = np.tril(np.random.default_rng(0).random((heads, seq, seq)))
    return values / values.sum(axis=-1, keepdims=True)


def decode(png: bytes) -> np.ndarray:
    """Palette indices (height, width)."""
    image = Image.open(io.BytesIO(png))
    assert image.mode == "P"
    np.testing.assert_array_equal(np.array(image.getpalette()).reshape(-1, 3), palette())
    return np.asarray(image)


@pytest.mark.parametrize(("seq", "heads"), [(1, 1), (1, 4), (5, 4), (5, 7), (33, 12), (200, 2), (512, 1)])
def test_every_cell_has_the_colour_of_its_weight(seq: int, heads: int) -> None:
    patterns = causal(heads, seq)
    patterns[0, 0, 0] = 1.0
    if seq > 1:
        patterns[0, 1, :2] = [0, np.nan]
    canvas = Canvas([f"t{i}" for i in range(seq)], heads)
    pixels = decode(canvas.picture("title", patterns))
    assert pixels.shape == canvas.shape and pixels.shape[1] <= pictures.MAX_WIDTH
    for (y, x), pattern in zip(canvas.panels, patterns, strict=True):
        middle = canvas.cell // 2
        cells = pixels[y + middle :: canvas.cell, x + middle :: canvas.cell][:seq, :seq]
        expected = np.where(np.tril(np.ones((seq, seq), bool)), colour_index(pattern), pictures.WHITE)
        np.testing.assert_array_equal(cells, expected)
        corner = pixels[y : y + canvas.cell, x : x + canvas.cell]
        assert (corner == corner[0, 0]).all()  # a cell has one colour up to its edges


def test_the_scale_is_fixed_and_blank_is_not_its_zero() -> None:
    colours = palette()[colour_index(np.array([0.0, 0.5, 1.0, 1.5, np.nan]))].tolist()
    assert colours[0] == [68, 1, 84]  # viridis, as matplotlib gives it
    assert colours[2] == colours[3] == [253, 231, 36]
    assert colours[4] == [255, 255, 255]
    faint = Canvas(["a", "b"], 1)
    top, left = faint.panels[0]
    assert decode(faint.picture("", np.full((1, 2, 2), 0.01)))[top, left] == round(0.01 * (pictures.LEVELS - 1))


def test_labels_stand_beside_their_rows_and_under_their_columns() -> None:
    canvas = Canvas(["mm", "", "m", ""], 1)
    (y, x), side = canvas.panels[0], 4 * canvas.cell
    ink = canvas.base < pictures.WHITE
    rows = ink[y : y + side, : x - 2].reshape(4, canvas.cell, -1).any(axis=(1, 2))
    columns = ink[y + side + 2 :, x : x + side].reshape(-1, 4, canvas.cell).any(axis=(0, 2))
    assert rows.tolist() == columns.tolist() == [True, False, True, False]
    lengths = [ink[y + row * canvas.cell : y + (row + 1) * canvas.cell, : x - 2].any(axis=0).sum() for row in (0, 2)]
    assert lengths[0] > lengths[1]


def test_labels_are_thinned_before_they_touch() -> None:
    canvas = Canvas(["m"] * 100, 1)
    (y, x), side = canvas.panels[0], 100 * canvas.cell
    ink = canvas.base[y : y + side, : x - 2].min(axis=1) < pictures.WHITE
    labels = (ink[1:] & ~ink[:-1]).sum() + ink[0]
    assert canvas.cell == 3 and labels == 25  # each fourth of them


def test_labels_are_shortened_and_nothing_in_them_is_markup() -> None:
    short = Canvas(["i" * 14], 1).base.shape[1]
    assert Canvas(["i" * 500], 1).base.shape[1] - short < 10
    Canvas(["$x_1$", "\\frac", "^", "\x00", "\n", "", "日本", "🙂", "\ud800", "a\u202eb", "\ufffd"], 2)


def test_characters_without_a_font_are_written_as_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "FALLBACK_FONTS", ("no such font.ttf",))
    assert pictures._drawable("жa日", 11)[0] == "жa\\u65e5"


def test_long_titles_are_shortened() -> None:
    canvas = Canvas(["a"], 1)
    pixels = decode(canvas.picture("word " * 500, np.ones((1, 1, 1))))
    assert (pixels[:, -pictures.MARGIN + 2 :] == pictures.WHITE).all()
