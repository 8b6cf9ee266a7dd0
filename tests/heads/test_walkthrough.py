"""The numbers of the walkthrough are the model's, and its checks can fail."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

import minitx.heads.one_layer
from minitx.attention import HeadAccess, Recorder
from minitx.config import ModelConfig
from minitx.fast.attention import rotate
from minitx.heads.contexts import compare_contexts, vectors_of
from minitx.heads.walkthrough import walk
from minitx.heads.walkthrough_page import as_text, steps_html
from minitx.model import Transformer
from minitx.system.errors import UserError
from tests.small import Letters

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
    recorded = Recorder(want_shares=True)
    with torch.inference_mode():
        ours(torch.tensor([TOKENS]), heads=HeadAccess(recorder=recorded))
    shown = {step.title.split(":")[0]: step for step in walked.steps}
    at = 7 if query is None else query
    row = torch.tensor(shown["Softmax"].tables[0].values)[:, 0]
    torch.testing.assert_close(row, recorded.patterns[layer][0, head, at])
    mixed = torch.tensor(shown["Mix"].tables[0].values)
    torch.testing.assert_close(mixed, recorded.head_outputs[layer][0, head])
    concatenated = shown["Concatenation"].tables[0]
    torch.testing.assert_close(torch.tensor(concatenated.values), recorded.head_outputs[layer][0, head])
    assert concatenated.columns == [f"c{i}" for i in range(head * 8, head * 8 + 8)]
    rows, shares = (torch.tensor(table.values) for table in shown["Output projection"].tables)
    torch.testing.assert_close(shares, recorded.shares[layer][0, :, at, :8])
    assert shown["Output projection"].tables[0].rows == concatenated.columns  # of each number, the row it meets
    torch.testing.assert_close(torch.tensor(concatenated.values)[at] @ rows, shares[head])
    summed = shown["Sum"].tables[0]
    with torch.inference_mode():
        before = ours.residual(torch.tensor([TOKENS]), last_layer=layer - 1)[0, at]
    added = recorded.shares[layer][0, :, at].sum(dim=0)
    expected = [*recorded.shares[layer][0, :, at], added, before, before + added]
    for numbers, vector in zip(summed.values, expected, strict=True):
        assert numbers[0] == pytest.approx(float(vector.norm()), rel=1e-4)
        torch.testing.assert_close(torch.tensor(numbers[1:]), vector[:7], atol=1e-5, rtol=1e-4)
    assert summed.rows == ["head 0", "head 1", "head 2", "head 3", "sum Y", "residual before", "residual after"]
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
        "Sum",
    ]
    assert sum(len(step.checks) for step in walked.steps) >= 10


def test_a_step_that_does_not_add_up_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks are worth something: a walkthrough that forgot the positions would not show the model's pattern."""
    monkeypatch.setattr(minitx.heads.one_layer, "rotate", lambda x, rotary: x)
    with pytest.raises(AssertionError, match="Softmax"):
        walk(model(), TOKENS, LABELS, 0, 0)


@pytest.mark.parametrize("name", ["query", "key"])
def test_queries_and_keys_must_keep_their_lengths(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys as well: with one key-value head, they are told from the queries by their number."""
    heads = 4 if name == "query" else 1

    def stretch(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        return rotate(x, rotary) * (1.01 if x.size(1) == heads else 1)

    monkeypatch.setattr(minitx.heads.one_layer, "rotate", stretch)
    with pytest.raises(AssertionError, match=f"Positions: {name} lengths stay misses by"):
        walk(model(n_kv_head=1), TOKENS, LABELS, 0, 0)


def test_one_embedding_and_two_vectors_in_context() -> None:
    ours = model()
    vectors = vectors_of(ours, [3, 1, 4], 2)  # (layer + 1, d_model)
    torch.testing.assert_close(vectors[-1], ours.residual(torch.tensor([[3, 1, 4]]))[0, 2])
    similarity = torch.cosine_similarity(vectors, vectors_of(ours, [2, 7, 8, 4], 3), dim=-1).tolist()
    assert similarity[0] == pytest.approx(1) and len(similarity) == 3
    assert all(value < 0.999 for value in similarity[1:])
    torch.testing.assert_close(vectors_of(ours, [3, 1, 4, 9], 2), vectors)


def test_text_and_page_show_every_step_and_escape_what_tokens_hold() -> None:
    ours = model()
    walked = walk(ours, TOKENS, LABELS, 0, 1, 3)
    contexts = compare_contexts(ours, Letters(), "bank", ("a <bank>", "b bank"))  # type: ignore[arg-type]  # enough here
    text = as_text(walked, contexts)
    assert text.count("✓") == sum(len(step.checks) for step in walked.steps)
    assert text.count("-∞") == 4 + 1  # the tokens after the fourth, and the words
    assert "after layer 1 " in text and max(map(len, text.split("\n"))) <= 120
    mask = next(step for step in walk(ours, TOKENS, LABELS, 0, 1).steps if step.title == "Mask")
    assert mask.tables[0].values[-1] == [-math.inf]  # the row of the last token, in which nothing is masked, shows none
    [cosines] = contexts[0].tables
    assert cosines.values[0] == pytest.approx([1]) and 0 < cosines.values[1][0] < 0.999
    page = steps_html(walked, contexts)
    assert "<th><b></th>" not in page and "<th>&lt;b&gt;</th>" in page
    assert not re.search(r"(src|href)=|https?://|<script", page)
    assert page.count("<h2>") == len(walked.steps) + 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((TOKENS, LABELS, 2, 0), "no layer 2: this model has layers 0 to 1"),
        ((TOKENS, LABELS, 0, 4), "no head 4"),
        (([1], ["a"], 0, 0), "fewer than 2 tokens"),
        (([1] * 17, ["a"] * 17, 0, 0), "17 tokens"),
    ],
)
def test_what_cannot_be_shown(arguments: tuple[list[int], list[str], int, int], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        walk(model(), *arguments)


def test_a_pruned_layer_cannot_be_shown_but_a_whole_one_can() -> None:
    pruned = model(kept_heads=[[0, 1, 2, 3], [0, 3]])
    assert walk(pruned, TOKENS, LABELS, 0, 3).steps
    with pytest.raises(UserError, match="Layer 1 of this model is pruned"):
        walk(pruned, TOKENS, LABELS, 1, 0)
