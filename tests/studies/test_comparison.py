"""What is compared, and how the results are summed up. tests/commands/test_compare.py trains for real."""

from __future__ import annotations

import dataclasses
import math
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from minitx.commands.compare import KINDS
from minitx.config import Config, ModelConfig
from minitx.data.prepare import prepare
from minitx.model import Transformer
from minitx.model_size import matrix_parameters
from minitx.studies.comparison import (
    check_equal_size,
    comparison_plan,
    decode_seconds,
    head_variants,
    kind_variants,
    time_variants,
)
from minitx.studies.comparison_report import TrialResult, comparison_table, draw_comparison, summarise
from minitx.system.errors import UserError
from minitx.system.figures import picture
from minitx.system.runtime import choose_runtime
from minitx.system.timing import Timed
from tests.small import small_config, small_model


def result(variant: str, seed: int, val_loss: float) -> TrialResult:
    return TrialResult(variant, seed, f"{variant}-{seed}", 1000, val_loss, val_loss / 2, 64.0)


RUNS = [
    result("1 head", 1, 4.0),
    result("1 head", 2, 5.0),
    result("2 heads", 1, 3.9),
    result("2 heads", 2, 4.8),
]
SPEEDS = {
    "1 head": {"training": [100.0, 300.0, 110.0], "decoding": [10.0, 11.0, 12.0]},
    "2 heads": {"training": [90.0] * 3, "decoding": [9.0] * 3},
}


@pytest.mark.parametrize("tie_embeddings", [True, False])
def test_head_counts_are_of_equal_size(tie_embeddings: bool) -> None:
    """In all matrices; the vectors of query-key norm are as wide as a head, so the totals differ by those."""
    variants = head_variants(ModelConfig(tie_embeddings=tie_embeddings), [1, 2, 4, 8, 16])
    check_equal_size(variants, 300)
    assert list(variants) == ["1 head", "2 heads", "4 heads", "8 heads", "16 heads"]
    one, sixteen = (Transformer(variants[name], 300) for name in ("1 head", "16 heads"))
    assert matrix_parameters(variants["1 head"], 300) == sum(p.numel() for p in one.parameters() if p.dim() == 2)
    difference = sum(p.numel() for p in one.parameters()) - sum(p.numel() for p in sixteen.parameters())
    assert difference == 4 * 2 * (128 - 8)


@pytest.mark.parametrize("settings", [{"n_kv_head": 2}, {"attention": "latent"}])
def test_models_of_different_size_are_refused(settings: dict[str, object]) -> None:
    """Two key-value heads are narrower in a model with more heads; so is the rotary part of latent attention."""
    variants = head_variants(ModelConfig(**settings), [2, 4])  # type: ignore[arg-type]  # values by name
    with pytest.raises(UserError, match="not of equal size, .*2 heads: [0-9,]+ parameters, 4 heads: "):
        check_equal_size(variants, 300)


def test_kinds_of_attention() -> None:
    chosen = kind_variants(ModelConfig(n_head=8), KINDS)
    assert {name: (m.attention, m.kv_heads) for name, m in chosen.items()} == {
        "multi_head": ("multi_head", 8),
        "grouped_query": ("multi_head", 4),
        "multi_query": ("multi_head", 1),
        "latent": ("latent", 8),
    }
    given = ModelConfig(n_head=8, n_kv_head=2)
    assert [m.kv_heads for m in kind_variants(given, ["grouped_query", "multi_query"]).values()] == [2, 1]
    latent = ModelConfig(attention="latent", d_latent=20, d_rotary=6)
    sizes = [(m.d_latent, m.d_rotary) for m in kind_variants(latent, ["multi_head", "latent"]).values()]
    assert sizes == [(None, None), (20, 6)]
    assert len(kind_variants(ModelConfig(n_head=2), ["multi_head", "multi_query"])) == 2
    with pytest.raises(UserError, match="model.n_head is 2, which nothing between it and 1 divides"):
        kind_variants(ModelConfig(n_head=2), KINDS)


def test_the_sum_of_several_seeds() -> None:
    """By hand: means, sample standard deviations, differences seed by seed, medians of speeds."""
    first, second = summarise(RUNS, SPEEDS).values()
    assert (first["val_loss"], first["val_loss_spread"]) == pytest.approx((4.5, math.sqrt(0.5)))
    assert (second["difference"], second["difference_spread"]) == pytest.approx((-0.15, statistics.stdev([-0.1, -0.2])))
    assert (first["difference"], first["seeds"], first["cache_bytes_per_token"]) == (0, 2, 64)
    assert (first["tokens_per_second"], first["decode_tokens_per_second"]) == (110, 11)
    assert second["val_bits_per_byte"] == pytest.approx((3.9 + 4.8) / 4)
    assert math.isnan(summarise(RUNS[::2], SPEEDS)["1 head"]["val_loss_spread"])


def test_the_table() -> None:
    lines = comparison_table(summarise(RUNS, SPEEDS)).splitlines()
    assert len({len(line) for line in lines}) == 1 and len(lines) == 4
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][2:4] == ["validation loss", "less 1 head"]
    assert cells[2] == ["1 head", "1,000", "4.500 ± 0.707", "–", "2.250", "110 ± 113", "11 ± 1", "64"]
    assert cells[3][3] == "-0.150 ± 0.071"
    alone = comparison_table(summarise(RUNS[::2], SPEEDS)).splitlines()
    assert "4.000 |" in alone[2] and "-0.100 |" in alone[3]


@pytest.mark.parametrize(
    ("names", "ticks", "label"),
    [(("1 head", "2 heads"), ["1", "2"], "heads"), (("multi_head", "latent"), ["multi\nhead", "latent"], "")],
)
def test_the_picture(
    names: tuple[str, str], ticks: list[str], label: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renamed = dict(zip(("1 head", "2 heads"), names, strict=True))
    runs = [dataclasses.replace(run, variant=renamed[run.variant]) for run in RUNS]
    speeds = {renamed[name]: speed for name, speed in SPEEDS.items()}
    figures: list[Figure] = []

    def keep(figure: Figure) -> bytes:
        figures.append(figure)
        return picture(figure)

    monkeypatch.setattr("minitx.studies.comparison_report.picture", keep)
    draw_comparison(runs, speeds, tmp_path / "a.png", "title")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    for axes in figures[0].axes:
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ticks and axes.get_xlabel() == label


def test_decoding_is_timed_without_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of the new tokens, which encodes the prompt, is not timed."""
    model, lengths = small_model(), []
    model.embedding.register_forward_hook(lambda module, inputs, output: lengths.append(inputs[0].numel()))
    monkeypatch.setattr("minitx.studies.comparison.time.perf_counter", lambda: 0.1 * len(lengths))
    assert decode_seconds(model, 0, 31) == pytest.approx(0.1 * 30)
    assert lengths == [1] * 31


def test_speeds_are_tokens_of_a_step_and_of_a_context_per_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step has batches of 4 windows of 32 tokens; the context of 32 holds a first token and 31 new ones."""
    config = small_config(tmp_path)
    prepared = prepare(config.data, config.tokenizer, config.seed, progress=False)
    asked: list[tuple[str, int]] = []

    def alternate(calls: dict[str, partial[Any]], *, repeats: int, label: str, **_: Any) -> dict[str, Timed]:
        asked.append((label, repeats))
        result = {name: call() for name, call in calls.items()}
        assert all(isinstance(seconds, float) == (label == "decoding") for seconds in result.values())
        assert list(calls) == ["1 head", "2 heads"]
        return {name: Timed([2.0, 4.0], 1) for name in calls}

    monkeypatch.setattr("minitx.studies.comparison.alternate", alternate)
    variants = head_variants(config.model, [1, 2])
    speeds = time_variants(variants, config, prepared, choose_runtime("cpu", "float32", False, 1))
    assert asked == [("training", 5), ("decoding", 5)]
    expected = {"training": [4 * 32 / 2, 4 * 32 / 4], "decoding": [30 / 2, 30 / 4]}
    assert speeds == dict.fromkeys(["1 head", "2 heads"], expected)


def test_a_plan_says_what_makes_a_comparison_the_same() -> None:
    config, variants = Config(), head_variants(ModelConfig(), [1, 2])
    longer = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=7))
    plan = comparison_plan(config, variants, [1, 2], "text")
    assert comparison_plan(dataclasses.replace(config, out="elsewhere"), variants, [1, 2], "text") == plan
    others = [(config, variants, [1, 3], "text"), (config, head_variants(ModelConfig(), [1]), [1, 2], "text")]
    others += [(longer, variants, [1, 2], "text"), (config, variants, [1, 2], "another")]
    assert all(comparison_plan(*other) != plan for other in others)
