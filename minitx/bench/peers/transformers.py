"""What minitx is measured against, in the shape of a given model: transformers' Llama, PyTorch's encoder, nanoGPT.

Each is used as its own documentation shows. Weights go to Llama through the table of interop/hf, and nothing is timed
before its logits were found equal.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from minitx.bench.shapes import Shape
from minitx.interop.hf import NAMES, exported_config, translate
from minitx.model import Transformer
from minitx.system.errors import UserError, require

Loss = Callable[[Tensor, Tensor], Tensor]
"""Inputs and targets, each (batch, seq) → mean loss in nats per token."""

CLOSE = 1e-3
"""Most that two logits may differ, as a share of the largest; float32 sums in another order differ by 1e-6."""


def why_no_transformers() -> str | None:
    """Why transformers' models cannot be measured here; None where they can."""
    if importlib.util.find_spec("transformers") is None:
        return "transformers is not installed (it is part of the test extra), so its Llama is left out."
    return None


@torch.no_grad()
def llama(model: Transformer) -> Any:
    """transformers' model with the shape and the weights of `model`, on its device and in its precision."""
    import transformers

    transformers.logging.set_verbosity_error()
    content = exported_config(model.config, model.vocab_size, end_of_document=0)
    theirs = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(
            content["model_type"],
            **{k: v for k, v in content.items() if k not in ("model_type", "architectures", "dtype")},
        )
    )
    weights = {str(translate(name, NAMES)): parameter for name, parameter in model.named_parameters()}
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    left = [name for name in missing if not (name == "lm_head.weight" and model.config.tie_embeddings)]
    require(not left and not unexpected, f"transformers' model has other weights ({left or unexpected}).")
    return theirs.to(model.embedding.weight.device, model.embedding.weight.dtype)


@torch.no_grad()
def require_equal_logits(model: Transformer, theirs: Callable[[Tensor], Tensor], what: str) -> float:
    """The largest difference as a share of the largest logit; raises UserError where that says another model."""
    length = min(model.config.context_length, 64)
    tokens = torch.randint(0, model.vocab_size, (2, length), generator=torch.Generator().manual_seed(0))
    tokens = tokens.to(model.embedding.weight.device)
    mode = model.training
    ours, other = model.eval()(tokens).float(), theirs(tokens).float()
    model.train(mode)
    difference = float((ours - other).abs().max() / ours.abs().max())
    close = CLOSE if model.embedding.weight.dtype == torch.float32 else 100 * CLOSE
    require(
        difference <= close,
        f"{what} gives other logits from the same weights (they differ by {difference:.2g} of the largest), so the two "
        "are not timed against each other.",
    )
    return difference


class Encoder(nn.Module):
    """PyTorch's own encoder, with a causal mask a decoder-only model; embeddings before it, an output layer behind."""

    mask: Tensor

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        model = shape.model
        layer = nn.TransformerEncoderLayer(
            model.d_model,
            model.n_head,
            dim_feedforward=3 * model.ff_width // 2,  # two matrices where SwiGLU has three: as many parameters
            dropout=model.dropout,
            activation="gelu",
            batch_first=True,
            norm_first=True,
            bias=False,
        )
        norm = nn.LayerNorm(model.d_model, bias=False)
        self.tokens = nn.Embedding(shape.vocab_size, model.d_model)
        self.positions = nn.Embedding(model.context_length, model.d_model)
        self.encoder = nn.TransformerEncoder(layer, model.n_layer, norm, enable_nested_tensor=False)
        self.output = nn.Linear(model.d_model, shape.vocab_size, bias=False)
        if model.tie_embeddings:
            self.output.weight = self.tokens.weight
        mask = nn.Transformer.generate_square_subsequent_mask(model.context_length)
        self.register_buffer("mask", mask, persistent=False)  # (seq, seq), -inf where a token may not look

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (batch, seq, vocab_size) of `tokens`, (batch, seq)."""
        seq = tokens.size(1)
        x = self.tokens(tokens) + self.positions.weight[:seq]  # (batch, seq, d_model)
        return self.output(self.encoder(x, mask=self.mask[:seq, :seq], is_causal=True))


def nano_gpt_module(checkout: str) -> ModuleType:
    """nanoGPT's model.py, imported from its checkout; raises UserError where that is none."""
    file = Path(checkout) / "model.py"
    require(file.is_file(), f"{checkout} is no checkout of nanoGPT: it has no model.py.")
    name = "minitx_benchmarks_nanogpt_model"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"{file} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its dataclass looks itself up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(f"{file} cannot be imported ({type(error).__name__}: {error}).") from error
    require(hasattr(module, "GPT"), f"{file} is not nanoGPT's model: it has no class GPT.")
    return module


def nano_gpt(checkout: str, **settings: Any) -> Any:
    """nanoGPT's model with the given fields of its GPTConfig; what it prints on the way is dropped."""
    module = nano_gpt_module(checkout)
    with contextlib.redirect_stdout(io.StringIO()):
        return module.GPT(module.GPTConfig(**settings))


def nano_gpt_of(checkout: str, shape: Shape) -> Any:
    """nanoGPT's model of a shape, without biases, as its training script has it."""
    model = shape.model
    return nano_gpt(
        checkout,
        n_layer=model.n_layer,
        n_head=model.n_head,
        n_embd=model.d_model,
        block_size=model.context_length,
        vocab_size=shape.vocab_size,
        dropout=model.dropout,
        bias=False,
    )


def nano_gpt_optimizer(model: Any, settings: dict[str, Any], device: torch.device) -> torch.optim.Optimizer:
    """The optimizer that nanoGPT's own `configure_optimizers` makes: weight_decay, learning_rate, betas."""
    with contextlib.redirect_stdout(io.StringIO()):
        return model.configure_optimizers(**settings, device_type=device.type)
