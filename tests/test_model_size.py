"""A model that cannot fit into memory is refused before it is built."""

from __future__ import annotations

import time

import pytest
import torch

from minitx.config import ModelConfig
from minitx.model import Transformer
from minitx.model_size import matrix_parameters, parameter_count, require_memory
from minitx.system.errors import UserError
from minitx.system.memory import total_memory


@pytest.mark.parametrize(
    "config",
    [
        ModelConfig(n_layer=1, n_head=2, d_model=16, context_length=8),
        ModelConfig(n_layer=5, n_head=4, n_kv_head=2, d_model=32, d_ff=48, context_length=8, tie_embeddings=True),
        ModelConfig(n_layer=3, n_head=2, d_model=16, context_length=8, qk_norm=False),
        ModelConfig(n_layer=2, n_head=3, d_model=48, context_length=8, attention="latent"),
        ModelConfig(n_layer=2, n_head=2, d_model=16, d_latent=6, d_rotary=4, attention="latent", qk_norm=False),
    ],
)
def test_counted_as_built(config: ModelConfig) -> None:
    parameters = list(Transformer(config, 300).parameters())
    assert parameter_count(config, 300) == sum(parameter.numel() for parameter in parameters)
    assert matrix_parameters(config, 300) == sum(parameter.numel() for parameter in parameters if parameter.dim() == 2)


def test_a_model_beyond_the_machine_is_refused_at_once() -> None:
    began = time.monotonic()
    config = ModelConfig(n_layer=1000, d_model=65536)
    with pytest.raises(UserError, match=r"1,000 layers of width 65,?536 needs about [\d,.]+ GB.*has [\d,.]+ GB"):
        require_memory(config, 2048, torch.device("cpu"), training=True)
    with pytest.raises(UserError, match="needs about"):
        require_memory(config, 2048, torch.device("cpu"), training=False)
    assert time.monotonic() - began < 30
    require_memory(ModelConfig(), 2048, torch.device("cpu"), training=True, rows=16)


def test_a_batch_beyond_the_machine_is_refused_before_it_is_drawn() -> None:
    with pytest.raises(UserError, match=r"A batch of 100,000,000 × 128 tokens needs more than [\d,.]+ GB"):
        require_memory(ModelConfig(), 2048, torch.device("cpu"), training=True, rows=100_000_000)


def test_this_machine_has_memory() -> None:
    there = total_memory(torch.device("cpu"))
    if there is None:
        pytest.skip("the system does not tell how much memory there is")
    assert 1 << 28 < there < 1 << 50
