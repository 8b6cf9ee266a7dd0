"""The Llama of the `transformers` library with minitx's weights. Nothing is timed unless its logits are equal."""

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from minitx.interop.hf import exported_config, renamed_parameters
from minitx.model import Transformer
from minitx.system.errors import require

MAX_DIFFERENCE = 1e-3
"""Largest difference of two float32 logits, as a share of the largest; summing in another order gives 1e-6."""


def why_not() -> str | None:
    """Why transformers' models cannot be measured; None if they can."""
    missing = importlib.util.find_spec("transformers") is None
    return "transformers is not installed (the extra test has it), so its Llama is left out." if missing else None


@torch.no_grad()
def llama(model: Transformer) -> Any:
    """transformers' model in eval mode with the weights of `model`, set to write greedily without a stop token.

    Raises UserError if its logits differ.
    """
    import transformers

    transformers.logging.set_verbosity_error()
    settings = exported_config(model.config, model.vocab_size, end_of_document=0)
    del settings["architectures"], settings["dtype"]
    theirs = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(**settings))
    theirs.load_state_dict(renamed_parameters(model), strict=False)  # a tied output layer comes with the embedding
    theirs = theirs.to(model.embedding.weight.device, model.embedding.weight.dtype).eval()
    require_equal_logits(model, lambda tokens: theirs(tokens).logits, "transformers' Llama")
    theirs.generation_config = transformers.GenerationConfig(do_sample=False, pad_token_id=0)
    return theirs


@torch.no_grad()
def require_equal_logits(model: Transformer, theirs: Callable[[Tensor], Tensor], what: str) -> float:
    """The largest difference as a share of the largest logit; raises UserError if that is too large."""
    weight, length = model.embedding.weight, min(model.config.context_length, 64)
    tokens = torch.arange(2 * length, device=weight.device).view(2, length) % model.vocab_size
    ours = model(tokens).float()
    difference = float((ours - theirs(tokens).float()).abs().max() / ours.abs().max())
    require(
        difference <= MAX_DIFFERENCE * (1 if weight.dtype == torch.float32 else 100),
        f"{what} gives other logits from the same weights (they differ by {difference:.2g} of the largest), so the two "
        "are not timed against each other.",
    )
    return difference
