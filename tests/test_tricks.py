"""Tricks against a few lines of float64 each; no trick looks ahead, and a model without any is what it was."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from minitx.__main__ import main
from minitx.config import GenerateConfig, ModelConfig
from minitx.config.model import TRICKS
from minitx.generation.compiled_decoder import CompiledDecoder
from minitx.generation.decoder import Decoder
from minitx.generation.generate import generate
from minitx.heads.blocks import Blocks
from minitx.heads.importance import with_identity_projection
from minitx.heads.record import patterns
from minitx.heads.walkthrough import walk
from minitx.interop.hf import exported_config
from minitx.interop.llama2c import export_weights
from minitx.model import Block, Transformer, next_token_loss
from minitx.model_size import parameters_by_part
from minitx.run.folder import Run
from minitx.system.errors import UserError
from minitx.training.optim import split_parameters
from minitx.training.session import train
from tests.small import small_config

VOCAB = 11
STARTS_PLAIN = ("value_embeddings", "smear", "bigram_hash")


def model_of(*tricks: str, trained: bool = True, **settings: Any) -> Transformer:
    """In float64. `trained` moves every weight, so that no trick still has its first values of 0."""
    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_head": 2, "d_model": 16, "context_length": 12, "embedding_std": 1.0, **settings}
    model = Transformer(ModelConfig(**shape, tricks=list(tricks)), VOCAB).double().eval()
    if trained:
        with torch.no_grad():
            for _, parameter in sorted(model.named_parameters()):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def text(batch: int = 2, seq: int = 12) -> Tensor:
    return torch.randint(0, VOCAB, (batch, seq), generator=torch.Generator().manual_seed(3))


def block_of(model: Transformer, layer: int = 1) -> Any:
    return cast(Block, model.blocks[layer])


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@torch.no_grad()
def test_smear_adds_a_share_of_the_previous_embedding() -> None:
    model, tokens = model_of("smear"), text()
    smear, table = cast(Any, model.tricks)["smear"], model.embedding.weight
    for row, embedded in zip(tokens.tolist(), model.embedding(tokens), strict=True):
        torch.testing.assert_close(embedded[0], table[row[0]])
        for i in range(1, len(row)):
            here = table[row[i]]
            unit = here / (here.square().mean() + torch.finfo(torch.float64).eps).sqrt()
            gate = sigmoid(sum(float(w) * float(x) for w, x in zip(smear.gate, unit, strict=False)))
            torch.testing.assert_close(embedded[i], here + float(smear.share) * gate * table[row[i - 1]])


@torch.no_grad()
def test_a_bigram_has_one_vector_wherever_it_stands() -> None:
    model, tokens = model_of("bigram_hash"), text()
    rows, table = cast(Any, model.tricks)["bigram_hash"].table, model.embedding.weight
    assert len(rows) == 5 * VOCAB
    for row, embedded in zip(tokens.tolist(), model.embedding(tokens), strict=True):
        torch.testing.assert_close(embedded[0], table[row[0]])
        for i in range(1, len(row)):
            hashed = ((row[i - 1] * 1_000_003) ^ (row[i] * 8_191)) % len(rows)
            torch.testing.assert_close(embedded[i], table[row[i]] + rows[hashed])


@torch.no_grad()
def test_value_embeddings_add_a_row_of_the_token_behind_a_gate_per_head() -> None:
    """Two query heads share a key-value head: there is one row and one gate for both."""
    model, tokens = model_of("value_embeddings", n_head=4, n_kv_head=2), text()
    x, value = torch.randn(2, 12, 16, dtype=torch.float64), block_of(model).attention.value
    added = cast(Any, model.tricks)["value_embeddings"][1]
    model.embedding(tokens)
    found = value(x)
    for b, row in enumerate(tokens.tolist()):
        for i, token in enumerate(row):
            expected = value.weight @ x[b, i]
            for head in range(2):
                gate = 2 * sigmoid(float(added.gate[head] @ x[b, i, :12]))
                expected[4 * head : 4 * head + 4] += gate * added.table[token, 4 * head : 4 * head + 4]
            torch.testing.assert_close(found[b, i], expected)


@torch.no_grad()
def test_key_offset_takes_the_slow_half_of_a_key_from_the_token_before() -> None:
    """Components 2, 3 and 6, 7 of a head of width 8 turn slowly: 0 turns with 4 the fastest."""
    key, x = block_of(model_of("key_offset")).attention.key, torch.randn(2, 5, 16, dtype=torch.float64)
    plain, found = x @ key.weight.T, key(x)
    for i in range(5):
        for component in range(16):
            earlier = max(0, i - 1) if component % 8 in (2, 3, 6, 7) else i
            torch.testing.assert_close(found[:, i, component], plain[:, earlier, component])


@torch.no_grad()
def test_key_offset_finds_the_place_after_a_token_in_one_layer() -> None:
    """With keys of which only the slow half counts, a query meets its own token one place later."""
    model = model_of("key_offset", n_layer=1, n_head=1, qk_norm=False, rope_theta=1e12, trained=False, d_model=64)
    attention = block_of(model, 0).attention
    slow = attention.key.weight.new_tensor([float(i % 32 >= 16) for i in range(64)])
    model.embedding.weight.copy_(torch.nn.functional.normalize(torch.randn(VOCAB, 64)) * slow * 8)
    for part in (attention.query, attention.key):
        part.weight.copy_(torch.eye(64) * 4)
    pattern = patterns(model, torch.tensor([[3, 5, 9, 1, 7, 5]]))[0, 0, 0]
    assert pattern[5].argmax() == 2  # 9 came after 5


@torch.no_grad()
def test_softcap_bounds_the_logits() -> None:
    capped, plain, residual = model_of("softcap"), model_of(), 20 * torch.randn(3, 16, dtype=torch.float64)
    logits = plain.unembed(residual)
    torch.testing.assert_close(capped.unembed(residual), 15 * torch.tanh(logits / 15))
    assert capped.unembed(1e9 * residual).abs().max() <= 15


@torch.no_grad()
def test_relu2_has_as_many_parameters_as_swiglu() -> None:
    model, x = model_of("relu2"), torch.randn(3, 16, dtype=torch.float64)
    feed_forward = block_of(model).feed_forward
    hidden = (feed_forward.up.weight @ x.T).clamp(min=0) ** 2
    torch.testing.assert_close(feed_forward(x), (feed_forward.down.weight @ hidden).T)
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in model_of().parameters())


@pytest.mark.parametrize("tricks", [*((name,) for name in TRICKS), TRICKS])
@torch.no_grad()
def test_a_later_token_changes_no_earlier_logit(tricks: tuple[str, ...]) -> None:
    model, tokens = model_of(*tricks), text()
    logits, changed = model(tokens), tokens.clone()
    changed[:, 7] = (changed[:, 7] + 1) % VOCAB
    other = model(changed)
    torch.testing.assert_close(other[:, :7], logits[:, :7], rtol=0, atol=1e-12)
    assert (other[:, 7:] - logits[:, 7:]).abs().amax(dim=(0, 2)).min() > 1e-6
    assert (logits - model_of()(tokens)).abs().max() > 1e-3  # the trick is there


@pytest.mark.parametrize("tricks", [(), *((name,) for name in STARTS_PLAIN), STARTS_PLAIN])
@torch.no_grad()
def test_without_tricks_and_before_training_all_is_as_in_the_plain_model(tricks: tuple[str, ...]) -> None:
    plain, model = model_of(trained=False), model_of(*tricks, trained=False)
    assert torch.equal(model(text()), plain(text()))
    shared = dict(plain.named_parameters())
    assert all(torch.equal(p, shared[name]) for name, p in model.named_parameters() if name in shared)
    assert tricks or (set(model.state_dict()) == set(shared) and not hasattr(model, "tricks"))


def test_gradients_reach_every_weight_and_muon_takes_none_of_the_tricks() -> None:
    model = model_of(*TRICKS)
    next_token_loss(model(text()), text()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    blocks, embedding, outer, vectors = map(set, split_parameters(model))
    added = set(cast(Any, model.tricks).parameters())
    assert added <= outer | vectors and not blocks & added
    assert blocks | embedding | outer | vectors == set(model.parameters())
    assert parameters_by_part(model)["tricks"] == sum(p.numel() for p in added)


@torch.no_grad()
def test_weights_travel_by_name_and_a_copy_has_weights_of_its_own() -> None:
    """A hook that kept the original's weights would leave a copy with the wrong ones."""
    model, other = model_of(*TRICKS), model_of(*TRICKS, trained=False)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(text()), model(text()))
    logits, twin = model(text()), copy.deepcopy(model)
    for parameter in cast(Any, twin.tricks).parameters():
        parameter.zero_()
    assert torch.equal(model(text()), logits) and not torch.equal(twin(text()), logits)
    residual = model.embedding(text())  # goes on through a copy, as when output projections are tried
    with_identity_projection(model, [0]).residual(residual, first_layer=0)


@pytest.mark.parametrize("tricks", [*((name,) for name in TRICKS), TRICKS])
def test_generation_equals_the_full_forward(tricks: tuple[str, ...]) -> None:
    """Also where the text outgrows the context of 12: then its newer half is encoded anew."""
    model, options = model_of(*tricks), GenerateConfig(max_new_tokens=14, temperature=0, num_samples=2)
    assert Decoder.why_not(model) == CompiledDecoder.why_not(model) == "no model with tricks can be"
    found = [step[0] for step in generate(model, [1, 2, 3], options, end_token=-1)]
    window, expected = [1, 2, 3], []
    with torch.no_grad():
        for _ in range(14):
            expected.append(int(model(torch.tensor([window]))[0, -1].argmax()))
            window.append(expected[-1])
            window = window[6:] if len(window) > 12 else window
    assert found == expected


def test_a_filled_cache_is_refused_where_tricks_look_back() -> None:
    model, tokens = model_of("smear"), text(1)
    cache = model.new_cache(1)
    model.residual(tokens[:, :3], cache=cache)
    with pytest.raises(ValueError, match="give it the whole text, not a filled cache"):
        model.residual(tokens[:, 3:4], cache=cache)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tricks": ["smeer"]}, r"model.tricks has 'smeer', which is none \(did you mean smear\?\)."),
        ({"tricks": ["xyz"]}, "model.tricks has 'xyz', which is none: take some of value_embeddings, smear,"),
        ({"tricks": ["smear", "smear"]}, "model.tricks is smear, smear: name each trick once"),
        ({"tricks": ["smear"], "attention": "latent"}, "model.tricks is smear, but latent attention and pruned models"),
        ({"tricks": ["relu2"], "kept_heads": [[0]] * 4}, "model.tricks is relu2, but latent attention and pruned"),
    ],
)
def test_tricks_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ModelConfig(**settings)


def test_what_needs_a_plain_model_says_so(tmp_path: Path) -> None:
    model = model_of("smear", qk_norm=False)
    with pytest.raises(UserError, match=r"The model has tricks \(smear\), which neither Llama nor Qwen3 has"):
        exported_config(model.config, VOCAB, 0)
    with pytest.raises(UserError, match="no pruned heads, no tricks"):
        export_weights(model, tmp_path / "model.bin")
    for look in (lambda: Blocks(model, [1, 2, 3], 0), lambda: walk(model, [1, 2, 3], ["a", "b", "c"], 0, 0)):
        with pytest.raises(UserError, match=r"This model has tricks \(smear\), and only a layer without"):
            look()


def test_a_run_with_tricks_trains_resumes_shows_its_heads_and_is_not_pruned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_config(tmp_path, steps=6, sample_every=6)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, tricks=list(TRICKS)))
    assert train(config) == 0
    longer = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=12))
    assert train(longer, config.out) == 0
    run = Run(Path(config.out))
    model, _ = run.load_model("last", torch.device("cpu"))
    assert cast(Any, model.tricks)["smear"].share.abs() > 0 and run.config().model.tricks == list(TRICKS)
    capsys.readouterr()
    assert main(["heads", config.out]) == 0 and "role" in capsys.readouterr().out
    assert main(["prune", config.out, "--curve"]) == 2
    assert "and only models without them are pruned" in capsys.readouterr().err
