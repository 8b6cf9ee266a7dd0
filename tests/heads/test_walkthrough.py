"""The walkthrough's numbers are the model's, and its steps are checked for real."""

from __future__ import annotations

import re

import pytest
import torch

import minitx.heads.walkthrough
from minitx.attention import Recorder
from minitx.config import ModelConfig
from minitx.heads.record import record
from minitx.heads.walkthrough import TwoContexts, two_contexts, walk
from minitx.heads.walkthrough_page import as_html, as_text
from minitx.model import Transformer
from minitx.system.errors import UserError

TOKENS = [3, 1, 4, 1, 5, 9, 2, 6]
LABELS = ["<b>", "one", "four", "one", "five", "nine", "two", "six"]


def model(**settings: object) -> Transformer:
    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_head": 4, "d_model": 32, "context_length": 16, **settings}
    return Transformer(ModelConfig(**shape), 30).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{}, {"n_kv_head": 2}, {"n_kv_head": 1, "qk_norm": False}])
@pytest.mark.parametrize(("layer", "head", "query"), [(0, 0, None), (1, 3, 4)])
def test_the_numbers_shown_are_those_of_the_whole_model(
    settings: dict[str, object], layer: int, head: int, query: int | None
) -> None:
    ours = model(**settings)
    walked = walk(ours, TOKENS, LABELS, layer, head, query)
    recorded: Recorder = record(ours, torch.tensor([TOKENS]), want_shares=True)
    shown = {step.title.split(":")[0]: step for step in walked.steps}
    at = 7 if query is None else query
    row = torch.tensor(shown["Softmax"].tables[0][1].values)[:, 0]
    torch.testing.assert_close(row, recorded.patterns[layer][0, head, at])
    mixed = torch.tensor(shown["Mix"].tables[0][1].values)
    torch.testing.assert_close(mixed, recorded.head_outputs[layer][0, head])
    shares = torch.tensor(shown["Output projection"].tables[1][1].values)
    torch.testing.assert_close(shares, recorded.shares[layer][0, :, at, :8])
    assert [step.title.split(":")[0] for step in walked.steps] == [
        "X",
        "Each head's query, key and value",
        "Positions",
        "Scores",
        "Scale",
        "Mask",
        "Softmax",
        "Mix",
        "Concatenation",
        "Output projection",
    ]
    assert sum(len(step.checks) for step in walked.steps) >= 10


def test_a_step_that_does_not_add_up_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks are worth something: a walkthrough that forgot the positions would not show the model's pattern."""
    monkeypatch.setattr(minitx.heads.walkthrough, "rotate", lambda x, rotary: x)
    with pytest.raises(AssertionError, match="Softmax"):
        walk(model(), TOKENS, LABELS, 0, 0)


def test_one_embedding_and_two_vectors_in_context() -> None:
    similarity = two_contexts(model(), [3, 1, 4], [2, 7, 8, 4], (2, 3))
    assert similarity[0] == pytest.approx(1) and len(similarity) == 3
    assert all(value < 0.999 for value in similarity[1:])
    assert two_contexts(model(), [3, 1, 4], [3, 1, 4, 9], (2, 2)) == pytest.approx([1, 1, 1])


def test_text_and_page_show_every_step_and_escape_what_tokens_hold() -> None:
    walked = walk(model(), TOKENS, LABELS, 0, 1, 3)
    contexts = TwoContexts("bank", ("a <bank>", "b bank"), (1, 1), [1.0, 0.5, 0.25])
    text = as_text(walked, contexts)
    assert text.count("✓") == sum(len(step.checks) for step in walked.steps)
    assert text.count("-∞") == 4 + 1  # the tokens after the fourth, and the words
    assert "after layer 1 " in text and max(map(len, text.split("\n"))) <= 120
    page = as_html(walked, "T<i>tle", contexts)
    assert "<b>one</b>" in page and "<th><b></th>" not in page and "&lt;b&gt;" in page and "T&lt;i&gt;tle" in page
    assert not re.search(r"(src|href)=|https?://|<script", page)
    assert page.count("<h2>") == len(walked.steps) + 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((TOKENS, LABELS, 2, 0), "no layer 2: this model has layers 0 to 1"),
        ((TOKENS, LABELS, 0, 4), "no head 4"),
        (([1], ["a"], 0, 0), "1 tokens, but a walkthrough needs 2 to 16"),
        (([1] * 17, ["a"] * 17, 0, 0), "17 tokens"),
    ],
)
def test_what_cannot_be_shown(arguments: tuple[list[int], list[str], int, int], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        walk(model(), *arguments)
