"""Pictures of patterns: the colour of every cell, and labels in the right place."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from minitx.tensorboard import pictures
from minitx.tensorboard.pictures import Frame, by_word, colour_index, palette


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
    frame = Frame([f"t{i}" for i in range(seq)], heads)
    pixels = decode(frame.picture(0, 100, patterns))
    assert pixels.shape == frame.base.shape and pixels.shape[1] <= pictures.MAX_WIDTH
    for (y, x), pattern in zip(frame.panels, patterns, strict=True):
        middle = frame.cell // 2
        cells = pixels[y + middle :: frame.cell, x + middle :: frame.cell][:seq, :seq]
        expected = np.where(np.tril(np.ones((seq, seq), bool)), colour_index(pattern), pictures.WHITE)
        np.testing.assert_array_equal(cells, expected)
        corner = pixels[y : y + frame.cell, x : x + frame.cell]
        assert (corner == corner[0, 0]).all()  # a cell has one colour up to its edges


def test_the_scale_is_fixed_and_blank_is_not_its_zero() -> None:
    colours = palette()[colour_index(np.array([0.0, 0.5, 1.0, 1.5, np.nan]))].tolist()
    assert colours[0] == [0xF4, 0xF6, 0xFB] != colours[4] == [255, 255, 255]
    assert colours[2] == colours[3] == [0x0B, 0x2A, 0x5E]
    faint = Frame(["a", "b"], 1)
    top, left = faint.panels[0]
    assert decode(faint.picture(0, 0, np.full((1, 2, 2), 0.01)))[top, left] == round(0.01 * (pictures.LEVELS - 1))


def test_the_colours_are_those_of_the_attention_tab() -> None:
    """On white, at the weights 0 to 1 between its stops."""
    [script] = (Path(pictures.__file__).parent / "plugin" / "static").rglob("theme.js")
    stops = re.findall(r"#[0-9a-f]{6}", script.read_text("utf-8").split("light:")[1].split("dark:")[0])
    for place, stop in enumerate(stops):
        colour = palette()[colour_index(np.array([place / (len(stops) - 1)]))][0]
        assert np.abs(colour.astype(int) - list(bytes.fromhex(stop[1:]))).max() <= 1, stop  # of 224 colours


def test_labels_stand_beside_their_rows_and_under_their_columns() -> None:
    frame = Frame(["mm", "", "m", ""], 1)
    (y, x), side = frame.panels[0], 4 * frame.cell
    ink = frame.base < pictures.WHITE
    rows = ink[y : y + side, : x - 2].reshape(4, frame.cell, -1).any(axis=(1, 2))
    columns = ink[y + side + 2 :, x : x + side].reshape(-1, 4, frame.cell).any(axis=(0, 2))
    assert rows.tolist() == columns.tolist() == [True, False, True, False]
    lengths = [ink[y + row * frame.cell : y + (row + 1) * frame.cell, : x - 2].any(axis=0).sum() for row in (0, 2)]
    assert lengths[0] > lengths[1]


def test_every_head_has_its_keys_labelled_and_every_row_its_queries() -> None:
    frame = Frame(["mmmm"] * 12, 5)
    ink, side = frame.base < pictures.WHITE, 12 * frame.cell
    left = frame.panels[0][1]
    assert len({y for y, _ in frame.panels}) > 1
    for y, x in frame.panels:
        keys, queries = ink[y + side + 2 : y + side + 30, x : x + side], ink[y : y + side, pictures.MARGIN : left]
        assert keys.reshape(28, 12, -1).any(axis=(0, 2)).all()
        assert queries.reshape(12, frame.cell, -1).any(axis=(1, 2)).all()


def test_labels_are_thinned_before_they_touch() -> None:
    frame = Frame(["m"] * 100, 1)
    (y, x), side = frame.panels[0], 100 * frame.cell
    ink = frame.base[y : y + side, : x - 2].min(axis=1) < pictures.WHITE
    labels = (ink[1:] & ~ink[:-1]).sum() + ink[0]
    assert frame.cell == 3 and labels == 25  # every fourth


def test_labels_are_shortened_but_never_cut_by_the_edge() -> None:
    longest = Frame(["m" * 9], 1).base.shape[1]
    frame = Frame(["m" * 500], 1)
    assert frame.base.shape[1] - longest < 10
    ink = frame.base < pictures.WHITE
    edges = [ink[:4], ink[-4:], ink[:, :4], ink[:, -4:]]
    assert not any(edge.any() for edge in edges)


@pytest.mark.filterwarnings("error")
def test_nothing_in_a_label_is_markup_and_no_character_crashes(caplog: pytest.LogCaptureFixture) -> None:
    labels = ["␣the", "$x_1$", "\\frac", "^", "\x00", "\n", "", "日本", "🙂", "👩‍👧", "\ud800", "a\u202eb", "\ufffd"]
    frame = Frame(labels, 2, "".join(labels))
    frame.picture(0, 0, causal(2, len(labels)))
    assert not caplog.records  # matplotlib logs when it misses a font


def test_characters_without_a_font_are_written_as_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "FONTS", ("DejaVu Sans", "no such font"))
    assert pictures.fit("жa日", 500) == "жa\\u65e5"


def test_a_picture_names_its_layer_and_step() -> None:
    frame, patterns = Frame(["a"], 1), np.ones((1, 1, 1))
    first, *others = (decode(frame.picture(*place, patterns)) for place in ((0, 1), (1, 1), (0, 2)))
    for other in others:
        rows = np.flatnonzero((first != other).any(axis=1))
        assert len(rows) and rows.max() < frame.panels[0][0]


def test_a_word_has_the_mean_of_its_rows_and_the_sum_of_its_columns() -> None:
    """Against a loop over every entry; the words are "Ani mal", "did n't", "␣" and "."."""
    labels, words = ["Ani", "mal", "␣did", "n", "'t", "␣", "."], [0, 2, 5, 6]
    patterns = causal(3, 7)
    joined, merged = by_word(labels, patterns, words)
    assert joined == ["Animal", "didn't", "␣", "."]
    spans = [range(0, 2), range(2, 5), range(5, 6), range(6, 7)]
    for (head, query, key), weight in np.ndenumerate(merged):
        sums = [sum(float(patterns[head, row, column]) for column in spans[key]) for row in spans[query]]
        assert weight == pytest.approx(sum(sums) / len(sums))
    np.testing.assert_allclose(merged.sum(axis=-1), 1)
    assert (merged[:, ~np.tri(4, dtype=bool)] == 0).all()


def test_long_captions_are_shortened() -> None:
    frame = Frame(["a"], 1, "word " * 500)
    assert (frame.base[:, -pictures.MARGIN + 2 :] == pictures.WHITE).all()
    assert (frame.base[: frame.panels[0][0] - 20, -40:] < pictures.WHITE).any()
