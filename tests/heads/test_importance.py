"""Ablation, gradients and contributions against slow, plain computations of the same figures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from minitx.attention import HeadAccess, Recorder
from minitx.config import ModelConfig
from minitx.data.token_files import Tokens
from minitx.heads.importance import ablate, gate_gradient, survey, without_output_projection
from minitx.model import Transformer
from tests.small import small_model


def some_tokens(count: int = 32 * 3 + 11) -> Tokens:
    return np.random.default_rng(0).integers(0, 30, count).astype(np.uint16)


def sharp_model() -> Transformer:
    """Weights so large that heads differ."""
    model = small_model()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(2.0)
    return model


def windows(tokens: Tokens) -> list[torch.Tensor]:
    return [torch.from_numpy(tokens[at : at + 33].astype(np.int64))[None] for at in range(0, len(tokens) - 1, 32)]


def nats(model: Transformer, window: torch.Tensor, gates: torch.Tensor | None = None) -> torch.Tensor:
    """Summed loss of one window in float64."""
    log_probabilities = model(window[:, :-1], heads=HeadAccess(gates)).log_softmax(-1)[0]
    return -log_probabilities[torch.arange(window.size(1) - 1), window[0, 1:]].sum()


def test_ablation_equals_a_run_with_the_gate_at_zero() -> None:
    model, tokens = sharp_model(), some_tokens()
    found = ablate(model, tokens, torch.zeros(2, 2, 8), batch_size=2)
    reference = sharp_model().double()
    with torch.no_grad():
        whole = [nats(reference, window).item() for window in windows(tokens)]
        assert found.loss == pytest.approx(sum(whole) / (len(tokens) - 1), abs=1e-6)
        for layer in range(2):
            for head in range(2):
                gates = torch.ones(2, 2, dtype=torch.float64)
                gates[layer, head] = 0
                change = [nats(reference, w, gates).item() - b for w, b in zip(windows(tokens), whole, strict=True)]
                assert found.zero[layer, head] == pytest.approx(sum(change) / (len(tokens) - 1), abs=1e-6)
                error = np.std(change, ddof=1) * 2 / (len(tokens) - 1)  # of a sum over 4 windows
                assert found.zero_error[layer, head] == pytest.approx(error, abs=1e-6)
    assert np.abs(found.zero).max() > 1e-3
    np.testing.assert_allclose(found.mean, found.zero, atol=1e-6)  # the mean given was zero


def test_mean_replacement_equals_a_block_whose_head_gives_its_mean() -> None:
    model, tokens = sharp_model(), some_tokens()
    means = survey(model, tokens).mean_output
    found = ablate(model, tokens, means, batch_size=3)
    layer, head, total = 1, 0, 0.0
    replaced = means[layer, head] @ model.get_parameter(f"blocks.{layer}.attention.output.weight")[:, :8].T

    attention = model.get_submodule(f"blocks.{layer}.attention")

    def replace(_: object, inputs: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        recorder = Recorder(want_shares=True)
        attention.forward(
            inputs[0],
            rotary=(model.rotary_cos[: output.size(1)], model.rotary_sin[: output.size(1)]),
            heads=HeadAccess(recorder=recorder),
        )
        return output - recorder.shares[layer][:, head] + replaced

    with torch.no_grad():
        before = sum(nats(model, window).item() for window in windows(tokens))
        hook = attention.register_forward_hook(replace)
        total = sum(nats(model, window).item() for window in windows(tokens))
        hook.remove()
    assert found.mean[layer, head] == pytest.approx((total - before) / (len(tokens) - 1), abs=1e-5)
    assert abs(found.mean[layer, head] - found.zero[layer, head]) > 1e-5


def test_gradient_is_the_mean_of_absolute_slopes_of_the_windows() -> None:
    """Against central differences in float64, one window and one head at a time."""
    model, tokens = sharp_model(), some_tokens()
    found = survey(model, tokens, batch_size=2)
    reference = sharp_model().double()
    expected = np.zeros((2, 2))
    with torch.no_grad():
        for window in windows(tokens):
            for layer, head in np.ndindex(2, 2):
                up, down = torch.ones(2, 2, dtype=torch.float64), torch.ones(2, 2, dtype=torch.float64)
                up[layer, head] += 1e-4
                down[layer, head] -= 1e-4
                expected[layer, head] += abs(nats(reference, window, up) - nats(reference, window, down)).item() / 2e-4
    np.testing.assert_allclose(found.gradient, expected / (len(tokens) - 1), rtol=1e-3, atol=1e-6)


def test_importance_is_the_gradient_of_the_same_windows_and_leaves_no_trace() -> None:
    """A gradient left in a parameter, a number drawn or another mode would make training go another way."""
    torch.manual_seed(0)
    model = Transformer(ModelConfig(n_layer=2, n_head=2, d_model=16, context_length=32, dropout=0.5), 30).train()
    model.embedding.weight.grad = torch.ones_like(model.embedding.weight)
    text, random = some_tokens(32 * 3 + 1), torch.get_rng_state()
    found = gate_gradient(model, torch.cat(windows(text)))
    np.testing.assert_allclose(found, survey(model, text).gradient, rtol=1e-5)
    assert found.min() > 0
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training for module in model.modules())
    assert torch.equal(model.embedding.weight.grad, torch.ones_like(model.embedding.weight))
    others = [p for name, p in model.named_parameters() if name != "embedding.weight"]
    assert all(p.grad is None and p.requires_grad for p in others)


def test_importance_of_pruned_heads_and_of_a_single_token_is_nothing() -> None:
    model = Transformer(ModelConfig(2, 2, d_model=16, context_length=32, kept_heads=[[1], []]), 30)
    found = gate_gradient(model, torch.tensor([[3, 4, 5]]))
    assert np.isnan(found).tolist() == [[True, False], [True, True]] and found[0, 1] > 0
    assert np.isnan(gate_gradient(small_model(), torch.tensor([[3]]))).all()


def test_contribution_is_the_mean_length_of_what_a_head_adds() -> None:
    model, tokens = sharp_model(), some_tokens()
    found = survey(model, tokens, batch_size=2)
    lengths: list[list[torch.Tensor]] = [[], []]
    for window in windows(tokens):
        recorder = Recorder(want_shares=True)
        with torch.no_grad():
            model(window[:, :-1], heads=HeadAccess(recorder=recorder))
        for layer in range(2):
            lengths[layer].append(recorder.shares[layer][0])  # (head, seq, d_model)
    for layer in range(2):
        shares = torch.cat(lengths[layer], dim=1)
        np.testing.assert_allclose(found.contribution[layer], shares.norm(dim=-1).mean(dim=1), rtol=1e-5)
        weight = model.get_parameter(f"blocks.{layer}.attention.output.weight").detach()
        mean_shares = [found.mean_output[layer, h] @ weight[:, 8 * h : 8 * h + 8].T for h in range(2)]
        np.testing.assert_allclose(torch.stack(mean_shares), shares.mean(dim=1), atol=1e-6)
    with torch.no_grad():
        mixed = [
            model.embedding(w[:, :-1])
            + model.blocks[0].attention(  # type: ignore[operator]
                model.blocks[0].attention_norm(model.embedding(w[:, :-1])),  # type: ignore[operator]
                rotary=(model.rotary_cos[: w.size(1) - 1], model.rotary_sin[: w.size(1) - 1]),
            )
            for w in windows(tokens)
        ]
    assert found.residual[0] == pytest.approx(torch.cat(mixed, dim=1).norm(dim=-1).mean().item(), rel=1e-5)


def test_without_output_projection_equals_a_model_whose_projection_is_the_identity() -> None:
    model, tokens = sharp_model(), some_tokens()
    found = without_output_projection(model, tokens)
    with torch.no_grad():
        before = sum(nats(model, window).item() for window in windows(tokens))
        for layer in range(2):
            other = sharp_model()
            other.get_parameter(f"blocks.{layer}.attention.output.weight").copy_(torch.eye(16))
            after = sum(nats(other, window).item() for window in windows(tokens))
            assert found[layer] == pytest.approx((after - before) / (len(tokens) - 1), abs=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_change_nothing_and_the_model_is_left_as_it_was(threads: int) -> None:
    model, tokens, before = sharp_model().train(), some_tokens(), torch.get_num_threads()
    expected = survey(model, tokens, batch_size=1)
    seen: list[int] = []
    torch.set_num_threads(threads)
    try:
        found = survey(model, tokens, batch_size=1, advance=seen.append)
        ablate(model, tokens, found.mean_output, batch_size=1)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert sum(seen) == len(tokens) - 1
    np.testing.assert_array_equal(found.gradient, expected.gradient)
    assert model.training and all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("threads", [1, 2])
def test_losses_are_computed_in_the_precision_of_the_caller_in_every_thread(threads: int) -> None:
    """Not the same figures as in float32, but near them; and the surrounding context keeps no weight back."""
    model, tokens, before = sharp_model(), some_tokens(), torch.get_num_threads()
    exact = survey(model, tokens, batch_size=1)
    wholly = ablate(model, tokens, exact.mean_output, batch_size=1)
    torch.set_num_threads(threads)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            rough = survey(model, tokens, batch_size=1)
            roughly = ablate(model, tokens, exact.mean_output, batch_size=1)
            again = survey(model, tokens, batch_size=1)
    finally:
        torch.set_num_threads(before)
    assert rough.loss != exact.loss and rough.loss == pytest.approx(exact.loss, abs=0.02)
    assert not np.array_equal(roughly.zero, wholly.zero)
    np.testing.assert_allclose(roughly.zero, wholly.zero, atol=0.05)
    np.testing.assert_array_equal(again.gradient, rough.gradient)
