"""The strongest examples of heads, against a plain loop over patterns, and their file, whole and damaged."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from minitx.attention import HeadAccess, Recorder
from minitx.config import Config, ModelConfig
from minitx.heads import examples, examples_file
from minitx.heads.examples import find_examples, is_due, scanned_windows, tokens_to_scan
from minitx.heads.examples_file import Examples, HeadExamples, Place, head_examples, marked
from minitx.model import Transformer
from minitx.system.errors import UserError
from minitx.system.files import json_bytes
from tests.small import Letters, small_config, small_model

TOKENS = np.random.default_rng(0).integers(0, 30, 32 * 6 + 5).astype(np.uint16)


def found(model: Transformer | None = None, count: int = 32 * 3) -> Examples:
    return find_examples(model or small_model(), Letters(), TOKENS, count, 7, "a run")  # type: ignore[arg-type]


def by_hand(model: Transformer, text: list[list[int]]) -> dict[int, list[tuple[int, int, float]]]:
    """Head → (query, key, weight) of every query from the third of a window, one weight after the other in float64."""
    places: dict[int, list[tuple[int, int, float]]] = {head: [] for head in range(4)}
    for window, tokens in enumerate(text):
        recorder = Recorder()
        with torch.no_grad():
            model.double()(torch.tensor([tokens]), heads=HeadAccess(recorder=recorder))
        for layer, pattern in recorder.patterns.items():
            for head in range(2):
                for query in range(2, len(tokens)):
                    best = max(range(1, query), key=lambda key: float(pattern[0, head, query, key]))
                    weight = float(pattern[0, head, query, best])
                    places[layer * 2 + head].append((window * 32 + query, window * 32 + best, weight))
    model.float()
    return places


def test_examples_are_those_of_a_plain_loop() -> None:
    """Windows 0, 2 and 4 of the six; the strongest have no pair of tokens twice; every query is counted once."""
    model = small_model()
    text = [TOKENS[32 * window : 32 * window + 32].tolist() for window in (0, 2, 4)]
    flat = [token for window in text for token in window]
    result = found(model)
    assert result.tokens == [f"<{token}>" for token in flat] and result.window == 32
    for head, places in by_hand(model, text).items():
        seen: set[tuple[int, int]] = set()
        expected = []
        for query, key, weight in sorted(places, key=lambda place: -place[2]):
            if (flat[query], flat[key]) not in seen:
                seen.add((flat[query], flat[key]))
                expected.append((query, key, weight))
        ours = result.of_heads[head]
        assert [place[:2] for place in ours.strongest] == [place[:2] for place in expected[:8]]
        np.testing.assert_allclose([place[2] for place in ours.strongest], [p[2] for p in expected[:8]], atol=1e-4)
        counts = [sum(tenth <= 10 * weight < tenth + 1 for *_, weight in places) for tenth in range(10)]
        assert ours.counts == counts and sum(counts) == 3 * 30
        keys = {query: key for query, key, _ in places}
        for tenth, sample in enumerate(ours.samples):
            assert len(sample) == min(2, counts[tenth])
            for query, key, weight in sample:
                assert keys[query] == key and tenth / 10 - 1e-4 <= weight <= (tenth + 1) / 10 + 1e-4


def test_the_order_of_batches_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = found()
    monkeypatch.setattr(examples, "PATTERN_VALUES", 1)
    assert found() == whole


def test_a_long_context_is_scanned_in_windows_that_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "MAX_PATTERN_VALUES", 2 * 10 * 10)
    assert scanned_windows(TOKENS, small_model().config, 64).shape == (6, 10)
    assert scanned_windows(TOKENS[:2], small_model().config, 64).shape == (1, 2)
    assert found(count=0).window == 10


def test_a_pruned_head_and_a_ruined_model_have_no_examples() -> None:
    config = ModelConfig(n_layer=2, n_head=2, d_model=16, context_length=32, kept_heads=[[1], []])
    nothing = HeadExamples([], [], [])
    assert [head == nothing for head in found(Transformer(config, 30)).of_heads] == [True, False, True, True]
    ruined = small_model()
    ruined.embedding.weight.data.fill_(float("nan"))
    assert found(ruined).of_heads == [nothing] * 4


def config_of(folder: Path, tokens: Any = True, **train: Any) -> Config:
    config = small_config(folder, **train)
    return dataclasses.replace(config, log=dataclasses.replace(config.log, examples=tokens))


@pytest.mark.parametrize(
    ("steps", "every", "due"),
    [(480, 120, [120, 240, 360, 480]), (12, 6, [6, 12]), (10, 100, [10]), (1000, 120, [240, 480, 720, 1000])],
)
def test_examples_come_at_the_evaluations_nearest_to_each_quarter(
    steps: int, every: int, due: list[int], tmp_path: Path
) -> None:
    config = config_of(tmp_path, steps=steps, eval_every=every)
    assert [step for step in range(1, steps + 1) if is_due(step, config)] == due
    assert not any(is_due(step, config_of(tmp_path, 0, steps=steps, eval_every=every)) for step in due)


def test_a_short_run_scans_less(tmp_path: Path) -> None:
    """One token in 320 that it trains on; a number is taken as it is."""
    assert tokens_to_scan(config_of(tmp_path, steps=480, batch_size=16)) == 480 * 16 * 32 // 320
    assert tokens_to_scan(Config()) == 3072
    assert tokens_to_scan(config_of(tmp_path, 500)) == 500
    assert tokens_to_scan(config_of(tmp_path, 1)) == 1 and tokens_to_scan(config_of(tmp_path, False)) == 0
    with pytest.raises(UserError, match=r"log\.examples is -1, but it must be at least 0"):
        config_of(tmp_path, -1)


def hand_made(length: int = 40) -> Examples:
    """One head; two windows of 20 tokens."""
    places = [Place(35, 22, 0.9), Place(5, 1, 0.5)]
    head = HeadExamples(places, [[]] * 5 + [[places[1]]] + [[]] * 3 + [[places[0]]], [0] * 5 + [30] + [0] * 3 + [6])
    return Examples(7, "", 1, 1, 20, [f"␣{i}" for i in range(length)], [head])


def test_context_is_cut_from_the_window_of_a_place() -> None:
    first, second = head_examples(hand_made(), 0)["strongest"]
    assert (first["query"], first["key"], first["weight"]) == (15, 2, 0.9)
    assert [position for position, _ in first["context"]] == [*range(7), *range(7, 20)]
    assert first["context"][0] == [0, "␣20"], "the window before is another context"
    assert marked(second) == " 0 «1» 2 3 4 [5] 6 7 8 9"


def test_tokens_that_are_left_out_show_as_a_mark() -> None:
    far = hand_made()._replace(window=40)
    place = examples_file.in_context(far, Place(30, 2, 0.5))
    assert marked(place) == " 0 1 «2» 3 4 5 6… 22 23 24 25 26 27 28 29 [30] 31 32 33 34"


def test_a_file_comes_back_as_it_was_and_takes_few_bytes(tmp_path: Path) -> None:
    examples_file.write(tmp_path, result := found())
    assert examples_file.read(tmp_path, 7) == result
    many = result._replace(layers=12, heads=12, tokens=["␣word"] * 4096, of_heads=result.of_heads * 36)
    examples_file.write(tmp_path, many._replace(step=8))
    assert examples_file.path(tmp_path, 8).stat().st_size < 400_000


def test_a_run_lists_and_forgets_its_steps(tmp_path: Path) -> None:
    for step in (100, 5, 2_000_000):
        examples_file.write(tmp_path, hand_made()._replace(step=step))
    folder = tmp_path / "attention"
    drafts = [folder / name for name in (".examples-000100.json-1", ".examples-000100.json-old-1", ".mine-1")]
    for draft in drafts:
        draft.write_text("")
    (folder / "examples-1.json").write_text("")
    assert examples_file.steps(tmp_path) == [5, 100, 2_000_000]
    examples_file.forget_after(tmp_path, 100)
    assert examples_file.steps(tmp_path) == [5, 100]
    assert [draft.exists() for draft in drafts] == [False, False, True], "killed processes left two"
    known = [examples_file.step_for([5, 100], step) for step in (1, 5, 99, 100, 1000)]
    assert known == [5, 5, 5, 100, 100] and examples_file.step_for([], 3) is None


def change(*path: Any, value: Any) -> Callable[[Any], None]:
    """Sets the value at a path of nested data."""

    def changing(content: Any) -> None:
        for name in path[:-1]:
            content = content[name]
        content[path[-1]] = value

    return changing


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (change("step", value=8), "it was renamed"),
        (change("run", value="other"), "of another run"),
        (change("window", value=21), "window"),
        (change("window", value=0), "window"),
        (change("heads", value=2), "of_heads"),
        (change("layers", value=10**9), "layers"),
        (change("tokens", 3, value=None), "tokens.3"),
        (change("tokens", value=[]), "tokens"),
        (change("of_heads", 0, "strongest", 0, 0, value=40), "strongest.0.0"),
        (change("of_heads", 0, "strongest", 0, 1, value=19), "strongest.0.1"),
        (change("of_heads", 0, "strongest", 0, 2, value=1.5), "strongest.0.2"),
        (change("of_heads", 0, "strongest", 0, value=[1, 2]), "strongest.0"),
        (change("of_heads", 0, "strongest", value=[[2, 1, 0.5]] * 9), "strongest"),
        (change("of_heads", 0, "counts", value=[1] * 9), "counts"),
        (change("of_heads", 0, "counts", 2, value=-1), "counts.2"),
        (change("of_heads", 0, "samples", 5, value={}), "samples.5"),
        (change("of_heads", value={}), "of_heads"),
    ],
)
def test_a_wrong_file_is_refused_in_a_sentence(damage: Callable[[Any], None], sentence: str, tmp_path: Path) -> None:
    """Though its checksum fits, as that of a stranger's file would."""
    (tmp_path / "data.json").write_bytes(json_bytes({"id": "this"}))
    examples_file.write(tmp_path, hand_made()._replace(run="this"))
    file = examples_file.path(tmp_path, 7)
    content = json.loads(file.read_text())
    del content["sha256"]
    assert examples_file.read(tmp_path, 7)
    damage(content)
    file.write_bytes(json_bytes(content))
    with pytest.raises(UserError) as refused:
        examples_file.read(tmp_path, 7)
    assert sentence in str(refused.value) and str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize("damaged", [b"", b"{", b"[]", b"{}", b"\xff", b"[" * 100_000])
def test_a_damaged_file_is_refused_in_a_sentence(damaged: bytes, tmp_path: Path) -> None:
    examples_file.write(tmp_path, hand_made())
    examples_file.path(tmp_path, 7).write_bytes(damaged)
    with pytest.raises(UserError, match=r"^examples-000007\.json is damaged: "):
        examples_file.read(tmp_path, 7)


def test_any_changed_byte_is_noticed(tmp_path: Path) -> None:
    """Of 50 spread over the file."""
    examples_file.write(tmp_path, whole := hand_made())
    file = examples_file.path(tmp_path, 7)
    content = file.read_bytes()
    for place in range(0, len(content) - 1, len(content) // 50):
        file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(UserError, match=r"examples-000007\.json"):
            examples_file.read(tmp_path, 7)
    file.write_bytes(content)
    assert examples_file.read(tmp_path, 7) == whole
