"""The table of heads is complete, in plain numbers, and readable as text, JSON and a picture."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from minitx.heads.figures import heads_figure, history_figure
from minitx.heads.measure import measure_heads
from minitx.heads.roles import UNCLASSIFIED, Roles
from minitx.heads.scores import SCORES
from minitx.heads.table import COLUMNS, as_text
from minitx.system.figures import save_picture
from tests.small import small_model

TOKENS = np.random.default_rng(0).integers(0, 30, 200).astype(np.uint16)


def test_every_head_has_every_figure_in_plain_numbers() -> None:
    done: list[int] = []
    measured = measure_heads(small_model(), TOKENS, projection=True, advance=done.append)
    found = json.loads(json.dumps(measured.to_json(), allow_nan=False))
    assert sum(done) == 3 * (len(TOKENS) - 1)
    assert [(entry["layer"], entry["head"]) for entry in found["heads"]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for entry in found["heads"]:
        assert (
            entry["scores"].keys()
            == entry["spreads"].keys()
            == {*SCORES, "semantic", "induction_on_repeats"}
            == found["chance"].keys()
        )
        assert entry["ablation"].keys() == {"zero", "zero_error", "mean", "mean_error"}
        assert entry["gradient"] > 0 and entry["contribution"] > 0
        assert -1 <= entry["copying"] <= 1
    assert np.shape([found["composition"][kind] for kind in "QKV"]) == (3, 4, 4)
    assert found["unclassified"] == np.mean([entry["role"] == UNCLASSIFIED for entry in found["heads"]])
    assert -1 <= found["rank_correlation"]["gradient_zero"] <= 1
    assert len(found["without_output_projection"]) == 2


def test_a_duplicated_head_is_found() -> None:
    model = small_model()
    with torch.no_grad():
        for name in ("query", "key"):
            weight = model.get_parameter(f"blocks.1.attention.{name}.weight")
            weight[8:] = weight[:8]
    heads = measure_heads(model, TOKENS, ablation=False).to_json()["heads"]
    assert heads[2]["most_like"] == {"layer": 1, "head": 1, "similarity": 1.0}
    assert heads[0]["most_like"]["similarity"] < 1


def test_the_text_names_every_head_and_says_what_was_left_out() -> None:
    text = as_text(measure_heads(small_model(), TOKENS, ablation=False))
    rows = {place: text.rpartition(f"\n{place} ")[2].split("\n")[0] for place in ("0.0", "0.1", "1.0", "1.1")}
    assert all(text.count(f"\n{place} ") == 2 for place in rows)
    assert [re.search(r" [QKV] 0\.[01] [+-]0\.\d\d$", row) is not None for row in rows.values()] == [
        False,
        False,
        True,
        True,
    ]
    assert text.count("not measured") == 4 and "Rank correlation" not in text
    assert "100% of the heads fit no role" in text
    assert "fit no role" not in as_text(measure_heads(small_model(), TOKENS[:16], ablation=False))
    assert all(f"\n{column:18}" in text for column in COLUMNS.values())
    assert max(len(line) for line in text.split("\n")) <= 140


def test_scores_and_roles_have_one_spelling_for_readers() -> None:
    """The column of "induction on repeats" was "repeats", and roles had the underscores of their keys."""
    measured = measure_heads(small_model(), TOKENS, ablation=False)
    roles = Roles(np.full((2, 2), "previous_token"), measured.roles.strengths)
    above, titles, *_ = as_text(dataclasses.replace(measured, roles=roles)).split("\n")[2:]
    end = titles.index("on repeats") + len("on repeats")
    assert above.strip() == "induction" and len(above) == end
    text = as_text(dataclasses.replace(measured, roles=roles))
    assert text.count("  previous token ") == 4 and "previous_token" not in text


@pytest.mark.parametrize("tokens", [TOKENS[:2], TOKENS[:33]])
def test_short_texts_have_gaps_and_no_faults(tokens: np.ndarray, tmp_path: Path) -> None:
    """Two tokens: no repeats, one window, no spread. The text and the picture say – there."""
    measured = measure_heads(small_model(), tokens)
    assert measured.ablation is not None
    measured.ablation.zero[0, 0] = -1e-6
    assert measured.to_json()["heads"][0]["spreads"]["entropy"] is None
    text = as_text(measured)
    assert "±-" not in text and "±–" not in text and (" – " in text or len(tokens) > 2)
    assert " 0.0000" in text and "-0.0000" not in text and "+0.0000" not in text
    save_picture(heads_figure(measured, "title"), tmp_path / "heads.png")
    with Image.open(tmp_path / "heads.png") as image:
        assert min(image.size) > 300


def test_a_model_of_one_head(tmp_path: Path) -> None:
    from minitx.config import ModelConfig
    from minitx.model import Transformer

    torch.manual_seed(0)
    model = Transformer(ModelConfig(n_layer=1, n_head=1, d_model=16, context_length=32), 30).eval()
    measured = measure_heads(model, TOKENS)
    found = measured.to_json()
    assert found["heads"][0]["most_like"] is None and found["similarity"] is None
    assert as_text(measured)
    save_picture(heads_figure(measured, "title"), tmp_path / "heads.svg")


def test_the_history_of_a_run_is_drawn(tmp_path: Path) -> None:
    """Also where a score has no chance level in the text, and where a loss is missing."""
    grid = [[0.1, 0.2], [0.3, None]]
    lines = [
        {
            "step": step,
            "scores": {"induction": grid, "entropy": grid, "first_mention": [[None, None], [None, None]]},
            "chance": {"induction": 0.1, "entropy": 1.0, "first_mention": None},
            "repeated_loss": [3.0, None],
        }
        for step in (10, 20)
    ]
    save_picture(history_figure(lines, "title"), tmp_path / "history.png")
    with Image.open(tmp_path / "history.png") as image:
        assert image.size[0] > 1000
