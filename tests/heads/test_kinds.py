"""What heads are for: hand-made patterns, oracles and models of one head, whose figures are known beforehand."""

from __future__ import annotations

import copy
import functools
import itertools
import json
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from minitx.attention import HeadAccess, Recorder
from minitx.config import ModelConfig
from minitx.data.tales.language import tales
from minitx.data.tales.tale import KINDS
from minitx.heads import kinds
from minitx.heads.figures import kinds_figure
from minitx.heads.kinds import Answers, Looks, Mean, Uses, answer, even_attention, kinds_of_heads, look, ratio, use
from minitx.heads.kinds_report import KindMeasurements, measure_kinds
from minitx.heads.places import Place, TaleBatch, place_tales
from minitx.heads.record import patterns
from minitx.heads.table import kinds_as_text
from minitx.model import Block, Transformer
from tests.small import tale_tokenizer


@functools.cache
def batches(count: int = 40, context_length: int = 128) -> list[TaleBatch]:
    return place_tales(itertools.islice(tales("validation", 1), count), tale_tokenizer("word"), context_length)


def model_of(seed: int = 0, sharp: float = 1.0, **shape: Any) -> Transformer:
    """An untrained model of the tales' words; `sharp` above 1 makes its heads differ."""
    torch.manual_seed(seed)
    config = ModelConfig(**{"n_layer": 2, "n_head": 2, "d_model": 16, "context_length": 128, **shape})
    model = Transformer(config, tale_tokenizer("word").vocab_size).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(sharp)
    return model


SHAPES: list[dict[str, Any]] = [
    {},
    {"qk_norm": False},
    {"n_head": 4, "n_kv_head": 2},
    {"attention": "latent"},
    {"attention": "latent", "qk_norm": False},
    {"n_head": 4, "n_kv_head": 2, "kept_heads": [[0, 1, 3], [2]]},
]


def even_pattern(seq: int) -> NDArray[np.float32]:
    return (np.tril(np.ones((seq, seq))) / np.arange(1, seq + 1)[:, None]).astype(np.float32)


def looks_of(monkeypatch: pytest.MonkeyPatch, patterns_of: list[NDArray[np.float32]]) -> Looks:
    """What `look` finds in patterns (layer, tale, head, query, key), one for each batch."""
    remaining = iter(patterns_of)
    monkeypatch.setattr(kinds, "patterns", lambda model, tokens: next(remaining))
    return look(model_of(), batches())


def test_a_head_that_follows_one_kind_attends_to_it_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Head 0.0 goes from each source of "object" to its verb, 0.1 always looks two back, the others at themselves."""
    made, shared = [], set()
    for batch in batches():
        seq = batch.tokens.size(1) - 1
        pattern = np.broadcast_to(np.eye(seq, dtype=np.float32), (2, len(batch.lengths), 2, seq, seq)).copy()
        pattern[0, :, 1] = np.eye(seq, k=-2)
        sources = {(p.row, p.queries.start) for p in batch.places if p.kind == "object"}
        shared |= {p.kind for p in batch.places if (p.row, p.queries.start) in sources}
        for place in batch.places:
            if place.kind == "object":
                pattern[0, place.row, 0, place.queries.start] = 0
                pattern[0, place.row, 0, place.queries.start, place.keys.start] = 1
        made.append(pattern)
    found = looks_of(monkeypatch, made)
    assert found.attention["object"][0, 0] == 1 and found.excess["object"].value[0, 0] == 1
    others = [kind for kind in KINDS if kind not in shared]
    assert len(others) > 10 and not any(found.attention[kind][0, 0] for kind in others)
    assert not any(found.attention[kind][1].any() for kind in KINDS)
    # Every source of an object stands two words behind its verb. So 0.1 attends to all of them, and means none.
    assert (
        found.attention["object"][0, 1] == found.control["object"][0, 1] == 1
        and found.excess["object"].value[0, 1] == 0
    )


def test_even_attention_is_what_chance_says(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = [(len(batch.lengths), batch.tokens.size(1) - 1) for batch in batches()]
    found = looks_of(monkeypatch, [np.broadcast_to(even_pattern(seq), (2, rows, 2, seq, seq)) for rows, seq in shapes])
    for kind in KINDS:
        places = [place for batch in batches() for place in batch.places if place.kind == kind]
        np.testing.assert_allclose(found.attention[kind], found.chance[kind][0], rtol=1e-6)
        np.testing.assert_allclose(found.control[kind], found.chance[kind][1], rtol=1e-6)
        seen = [len(p.keys) / np.arange(p.queries.start + 1, p.queries.stop + 1) for p in places]
        assert found.chance[kind][0] == pytest.approx(np.mean([shares.mean() for shares in seen]))


def test_the_control_never_looks_at_the_start_of_the_tale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads with nothing to do rest there: such a head attends to no word, over any distance."""
    made = []
    for batch in batches():
        seq = batch.tokens.size(1) - 1
        resting = np.zeros((2, len(batch.lengths), 2, seq, seq), dtype=np.float32)
        resting[..., 0] = 1
        made.append(resting)
    found = looks_of(monkeypatch, made)
    assert all((found.control[kind] == 0).all() and (found.attention[kind] == 0).all() for kind in KINDS)


def test_many_patterns_are_measured_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(sharp=3.0)
    whole = look(model, batches())
    monkeypatch.setattr(kinds, "MAX_PATTERN_VALUES", 4 * 60**2 * 5)
    parts = look(model, batches())
    for kind in KINDS:
        np.testing.assert_allclose(parts.attention[kind], whole.attention[kind], atol=1e-6)
        np.testing.assert_allclose(parts.control[kind], whole.control[kind], atol=1e-6)


def test_words_of_several_tokens_are_pooled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sum over the tokens looked at, mean over those that look; the same in the control."""
    pattern = np.random.default_rng(0).random((2, 1, 2, 12, 12), dtype=np.float32)
    place = Place(0, "object", 9, range(6, 8), range(2, 5), 5, (6,), False)
    batch = TaleBatch(torch.zeros(1, 13, dtype=torch.long), np.array([13]), np.array([1.0]), [place])
    monkeypatch.setattr(kinds, "patterns", lambda model, tokens: pattern)
    found, p = look(model_of(), [batch]), pattern[:, 0].astype(float)
    np.testing.assert_allclose(found.attention["object"], (p[..., 6, 2:5] + p[..., 7, 2:5]).sum(-1) / 2, rtol=1e-5)
    others = [start for start in range(5, 11) if start != 6]  # keys from 1 on, queries up to 11
    control: list[Any] = [sum(p[..., s + i, s - 4 + j] for i in range(2) for j in range(3)) / 2 for s in others]
    np.testing.assert_allclose(found.control["object"], np.mean(control, axis=0), rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_even_attention_makes_one_head_even_and_gives_it_back(shape: dict[str, Any]) -> None:
    model = model_of(sharp=3.0, **shape)
    text, layer = batches()[0].tokens[:3, :20], 1
    attention = cast(Block, model.blocks[layer]).attention
    assert attention is not None
    before, weights = patterns(model, text), {name: p.clone() for name, p in model.named_parameters()}
    for head in model.config.heads_in(layer):
        with even_attention(attention, head), torch.inference_mode():
            during, fused = patterns(model, text), model.residual(text)
            explicit = model.residual(text, heads=HeadAccess(recorder=Recorder()))
        np.testing.assert_allclose(during[layer, :, head], np.broadcast_to(even_pattern(20), (3, 20, 20)), atol=1e-6)
        during[layer, :, head] = before[layer, :, head]
        np.testing.assert_array_equal(during, before)  # no other head changed
        torch.testing.assert_close(fused, explicit, atol=1e-4, rtol=1e-4)
        assert np.abs(before[layer, :, head] - even_pattern(20)).max() > 0.1
    assert all(torch.equal(parameter, weights[name]) for name, parameter in model.named_parameters())


class Oracle(nn.Module):
    """Gives the next token a logit of `height`, and all others 0; it knows the texts."""

    def __init__(self, height: float) -> None:
        super().__init__()
        self.height, self.vocab_size = height, tale_tokenizer("word").vocab_size
        self.embedding = nn.Embedding(1, 1)
        self.final_norm = self.output = self.unembed = nn.Identity()
        self.next = {str(batch.tokens[:, :-1].tolist()): batch.tokens[:, 1:] for batch in batches()}

    def residual(self, tokens: Tensor) -> Tensor:
        known = self.next[str(tokens.tolist())]
        return self.height * nn.functional.one_hot(known, self.vocab_size).double()


def test_an_oracle_is_always_right_and_has_the_loss_of_its_logits() -> None:
    done: list[int] = []
    found = answer(cast(Transformer, Oracle(5.0)), batches(), done.append)
    asked = [place for batch in batches() for place in batch.places if place.rivals]
    for kind in KINDS:
        words = [place for place in asked if place.kind == kind]
        new = any(place.is_new for place in words)
        assert found.counts[kind] == len(words)
        assert found.accuracy[kind].value == 1 and (
            found.new[kind].value == 1 if new else np.isnan(found.new[kind].value)
        )
        assert found.chance[kind] == pytest.approx(np.mean([1 / (1 + len(place.rivals)) for place in words]))
    loss = np.log(1 + (tale_tokenizer("word").vocab_size - 1) * np.exp(-5.0))  # per token, whatever fills up the rows
    tokens, nats = (np.concatenate(part) for part in zip(*((b.lengths - 1, b.nats) for b in batches()), strict=True))
    assert sum(done) == len(tokens) == 40
    assert found.loss == pytest.approx(loss, abs=1e-5)
    assert found.entropy == pytest.approx(nats.sum() / tokens.sum())
    assert found.above.value == pytest.approx(found.loss - found.entropy)
    without_one = [(loss * n.sum() - e.sum()) / n.sum() for n, e in (leave_out(i, tokens, nats) for i in range(40))]
    jackknife = np.sqrt(39 / 40 * np.sum((without_one - np.mean(without_one)) ** 2))
    assert found.above.error == pytest.approx(jackknife, rel=0.05)
    assert all(answer(cast(Transformer, Oracle(-5.0)), batches()).accuracy[kind].value == 0 for kind in KINDS)


def leave_out(i: int, *arrays: NDArray[Any]) -> list[NDArray[Any]]:
    return [np.delete(array, i) for array in arrays]


def test_an_untrained_model_guesses() -> None:
    """Over several seeds, for the words that one model prefers it prefers everywhere."""
    found = [answer(model_of(seed), batches(100)) for seed in range(8)]
    counts = np.array([found[0].counts[kind] for kind in KINDS])
    share = np.mean([[one.accuracy[kind].value for kind in KINDS] for one in found], axis=0) @ counts / counts.sum()
    assert share == pytest.approx(np.array([found[0].chance[kind] for kind in KINDS]) @ counts / counts.sum(), abs=0.05)


def test_words_of_one_tale_are_no_sample_of_their_own() -> None:
    """Ten times the same words in each tale tell no more than once; a plain standard error would fall to a third."""
    random = np.random.default_rng(0)
    counts = random.integers(1, 4, 50)
    sums = random.binomial(counts, 0.7)
    once, often = ratio(sums, counts), ratio(10 * sums, 10 * counts)
    assert once == pytest.approx(often) and once.value == sums.sum() / counts.sum()
    drawn = random.integers(0, 50, (4000, 50))
    bootstrap = np.std(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    assert once.error == pytest.approx(bootstrap, rel=0.1)
    assert np.isnan(ratio(sums[:5], counts[:5]).error) and np.isnan(ratio(sums[:0], counts[:0]).value)


def lone_head(layer: int, head: int, **shape: Any) -> Transformer:
    """A model in which no other head writes anything."""
    model = model_of(sharp=2.0, **shape)
    with torch.no_grad():
        for at, heads in enumerate(model.config.heads_in(i) for i in range(2)):
            for i, other in enumerate(heads):
                if (at, other) != (layer, head):
                    width = model.config.d_head
                    model.get_parameter(f"blocks.{at}.attention.output.weight")[:, i * width : (i + 1) * width] = 0
    return model


def words_that_need(model: Transformer, layer: int, head: int) -> list[TaleBatch]:
    """Batches with places whose right word wins with the head, and loses with its mean and with even attention."""
    found, index = [], model.config.heads_in(layer).index(head)
    width, inputs = model.config.d_head, [(b.tokens[:, :-1], torch.from_numpy(b.lengths - 1)) for b in batches()]
    kept: list[Tensor] = []
    output = model.get_submodule(f"blocks.{layer}.attention.output")
    with torch.inference_mode():
        hook = output.register_forward_pre_hook(
            lambda _, given: kept.append(given[0][..., index * width :][..., :width])
        )
        whole = [model(text) for text, _ in inputs]
        hook.remove()
        seen = [
            row[:length]
            for out, (_, lengths) in zip(kept, inputs, strict=True)
            for row, length in zip(out, lengths, strict=True)
        ]
        mean = torch.cat(seen).mean(dim=0)

        def held(_: object, given: tuple[Tensor]) -> Tensor:
            changed = given[0].clone()
            changed[..., index * width : (index + 1) * width] = mean
            return changed

        hook = output.register_forward_pre_hook(held)
        at_mean = [model(text) for text, _ in inputs]
        hook.remove()
        even_model = copy.deepcopy(model)
        query = even_model.get_parameter(f"blocks.{layer}.attention.query.weight")
        rows = len(query) // len(model.config.heads_in(layer))
        query[index * rows : (index + 1) * rows] = 0
        even = [even_model(text) for text, _ in inputs]
    for batch, logits, without, uniform in zip(batches(), whole, at_mean, even, strict=True):
        places = []
        for row, length in enumerate(batch.lengths):
            for query_at in range(5, int(length) - 1):
                now, then, spread = (x[row, query_at, :40] for x in (logits, without, uniform))
                wins = now[:, None] - now > 1e-4  # (right, rival)
                loses = (then[:, None] - then < -1e-4) & (spread[:, None] - spread < -1e-4)
                for right, rival in (wins & loses).nonzero().tolist()[:1]:
                    at = range(query_at, query_at + 1)
                    places.append(Place(row, "object", query_at + 1, at, range(1, 2), right, (rival,), False))
        found.append(TaleBatch(batch.tokens, batch.lengths, batch.nats, places))
    assert sum(len(batch.places) for batch in found) > 100
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_of_one_head_loses_all_without_it_and_nothing_without_others(shape: dict[str, Any]) -> None:
    layer, head = (0, 1)
    model = lone_head(layer, head, **shape)
    needing, done = words_that_need(model, layer, head), list[int]()
    expected = np.full((2, model.config.n_head), np.nan)
    for at in range(2):
        expected[at, model.config.heads_in(at)] = 0
    expected[layer, head] = 1
    found = use(model, needing, done.append)
    np.testing.assert_array_equal(found.mean["object"].value, expected)
    np.testing.assert_array_equal(found.uniform["object"].value, expected)
    assert sum(done) == 40 and np.isnan(found.mean["place"].value).all()


def made(
    excess: dict[str, float], drop: dict[str, float], error: float = 0.01, accuracy: float = 0.9
) -> tuple[Answers, Looks, Uses]:
    """Figures of one head, given by kind; 0 for other kinds."""

    def means(values: dict[str, float]) -> dict[str, Mean]:
        return {kind: Mean(np.array([[values.get(kind, 0.0)]]), np.array([[error]])) for kind in KINDS}

    values = {kind: np.array([[excess.get(kind, 0.0)]]) for kind in KINDS}
    looks = Looks(
        values, {kind: 0 * value for kind, value in values.items()}, means(excess), dict.fromkeys(KINDS, (0, 0))
    )
    known = {kind: Mean(accuracy, 0.02) for kind in KINDS}
    answers = Answers(known, known, dict.fromkeys(KINDS, 0.5), dict.fromkeys(KINDS, 100), 1.0, 1.0, Mean(0.0, 0.1))
    return answers, looks, Uses(means(drop), means(drop))


def test_a_head_needs_attention_and_use_for_its_name() -> None:
    excess = {"object": 0.5, "pronoun": 0.8, "place": 0.9, "agreement": 0.05, "cause": 0.2}
    drop = {"object": 0.3, "pronoun": 0.04, "place": 0.005, "agreement": 0.6, "cause": 0.02, "time": 0.2}
    figures = made(excess, drop)
    assert kinds_of_heads(*figures) == [[["pronoun", "object"]]]
    [head] = KindMeasurements(20, *figures).heads()
    assert (head.named, head.attends_only) == (["pronoun", "object"], ["place", "cause"])
    assert head.matters_only == ["agreement", "time"] and not head.is_pruned
    assert kinds_of_heads(*made(excess, drop, error=np.nan)) == [[[]]]  # too few tales: no name


@pytest.mark.parametrize(("accuracy", "names"), [(0.55, []), (0.57, ["object"])])
def test_no_head_is_named_after_a_kind_that_the_model_answers_by_chance(accuracy: float, names: list[str]) -> None:
    """Chance is 0.5 ± 0.02. Without a head, a model that always guesses the same may lose accuracy by luck."""
    figures = made({"object": 0.5}, {"object": 0.3}, accuracy=accuracy)
    assert kinds_of_heads(*figures) == [[names]]
    [head] = KindMeasurements(20, *figures).heads()
    assert (head.named, head.attends_only, head.matters_only) == (names, [] if names else ["object"], [])


@pytest.mark.parametrize("shape", SHAPES)
def test_every_model_has_a_table_plain_data_and_a_picture(shape: dict[str, Any]) -> None:
    model, done = model_of(**shape), list[int]()
    measured = measure_kinds(model, batches(), done.append)
    assert sum(done) == 3 * 40
    found = json.loads(json.dumps(measured.to_json(), allow_nan=False))
    heads = [(layer, head) for layer in range(2) for head in range(model.config.n_head)]
    assert [(head["layer"], head["head"]) for head in found["heads"]] == heads
    kept = [(layer, head) for layer in range(2) for head in model.config.heads_in(layer)]
    assert [(head["layer"], head["head"]) for head in found["heads"] if not head["is_pruned"]] == kept
    assert found["kinds"].keys() == KINDS.keys() and found["kinds"]["object"]["answers"]["counts"] > 40
    for layer, head in heads:
        for part in (found["kinds"]["object"]["looks"]["attention"], found["kinds"]["object"]["uses"]["mean"]["value"]):
            assert (part[layer][head] is not None) == ((layer, head) in kept)
    text = kinds_as_text(measured)
    assert max(map(len, text.split("\n"))) <= 130 and text.count("pruned") == len(heads) - len(kept)
    assert all(f"\n{kind} " in text for kind in KINDS) and all(f"\n{layer}.{head}  " in text for layer, head in heads)
    assert len(kinds_figure(measured, "a model").axes) == 2
    assert text.count("in tales: ") == len(kept) and "unclassified" not in text  # that is what a head without role is


def test_kinds_without_a_word_are_dashes() -> None:
    [batch] = batches(1)
    measured = measure_kinds(model_of(), [batch], lambda _: None)
    missing = next(kind for kind in KINDS if all(place.kind != kind for place in batch.places))
    assert "nan" not in kinds_as_text(measured) and "–" in kinds_as_text(measured)
    assert measured.to_json()["kinds"][missing]["answers"]["accuracy"]["value"] is None
