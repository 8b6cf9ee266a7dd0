"""How large a model is, counted before it is built: parameters, memory, cache, floating-point operations."""

import torch

from minitx.config import ModelConfig
from minitx.model import Transformer
from minitx.system.errors import UserError
from minitx.system.memory import total_memory

TRAINING_BYTES = 16
"""Per parameter in training: the weight, its gradient and AdamW's two means, in float32."""


def require_memory(
    config: ModelConfig, vocab_size: int, device: torch.device, *, training: bool, copies: float = 1, rows: int = 0
) -> None:
    """Raise `UserError` where the parameters, with their gradients and means in training, or a batch exceed the memory.

    copies: how often processes hold these in the same memory; less than 1 where they share them out.
    rows: sequences in a forward pass; counted are their logits in bfloat16 and residuals, which is less than all.
    """
    memory = total_memory(device)
    needed = parameter_count(config, vocab_size) * (TRAINING_BYTES if training else 4) * copies
    if memory is not None and needed > memory:
        raise UserError(
            f"A model of {config.n_layer:,} layers of width {config.d_model:,} needs about {needed / 1e9:,.1f} GB, but "
            f"this machine has {memory / 1e9:,.1f} GB: lower model.n_layer, model.d_model or model.d_ff."
        )
    needed = rows * config.context_length * (2 * vocab_size + 4 * config.n_layer * config.d_model)
    if memory is not None and needed > memory:
        raise UserError(
            f"A batch of {rows:,} × {config.context_length:,} tokens needs more than {needed / 1e9:,.1f} GB, but this "
            f"machine has {memory / 1e9:,.1f} GB: lower train.batch_size (and raise train.grad_accum) or "
            "model.context_length."
        )


def parameter_count(config: ModelConfig, vocab_size: int) -> int:
    """Parameters of a model that is not built, those of tricks aside; heads that pruning removed are counted too.

    Added up, for building without values makes torch import its compiler, which takes as long as all of torch.
    """
    head_norms = config.latent_width if config.attention == "latent" else 2 * config.d_head
    norms = config.n_layer * (2 * config.d_model + head_norms * config.qk_norm) + config.d_model
    return matrix_parameters(config, vocab_size) + norms


def matrix_parameters(config: ModelConfig, vocab_size: int) -> int:
    """Parameters of the matrices alone: `parameter_count` without the vectors of the norms."""
    width = config.d_model  # in latent attention also that of all heads together
    if config.attention == "latent":
        rotary = config.rotary_width
        attention = width * (width + config.n_head * rotary)  # query
        attention += width * (config.latent_width + rotary)  # compress, rotary key
        attention += 2 * config.latent_width * width + width * width  # key and value, output
    else:
        attention = 2 * width * (config.n_head + config.kv_heads) * config.d_head  # query and output, key and value
    ends = (1 if config.tie_embeddings else 2) * vocab_size * width  # embedding, output
    return config.n_layer * (attention + 3 * width * config.ff_width) + ends


def parameters_by_part(model: Transformer) -> dict[str, int]:
    """Number of parameters of each part; a tied output layer counts as 0."""
    parts = {"tricks": 0} if model.config.tricks else {}
    parts |= {"embedding": 0, "attention": 0, "feed-forward": 0, "norms": 0, "output": 0}
    for name, parameter in model.named_parameters():  # a tied matrix is listed once, as the embedding
        part = "norms" if "norm" in name else next(part for part in parts if part.replace("-", "_") in name)
        parts[part] += parameter.numel()
    return parts


def cache_bytes_per_token(config: ModelConfig, bytes_per_value: int = 4) -> int:
    """Bytes of cache per token: 2 · n_kv_head · d_head values in each layer.

    In latent attention: d_latent + d_rotary values (DeepSeek-V2, table 1). Heads that pruning removed do not count.
    """
    layers = range(config.n_layer)
    if config.attention == "latent":
        values = sum(config.latent_width + config.rotary_width for layer in layers if config.heads_in(layer))
    else:
        values = sum(2 * len(config.kv_heads_in(layer)) * config.d_head for layer in layers)
    return values * bytes_per_value


def matmul_flops_per_token(model: Transformer, seq: int) -> int:
    """Floating-point operations of the matrix products in one token's forward pass, 2 per multiply and add.

    Weights need 2 each, attention 4 · n_layer · seq · n_head · d_head (Chowdhery et al. 2022, PaLM, appendix B). That
    includes the masked half of the scores, which latent attention computes from d_rotary more components. A training
    step takes three times as many.
    """
    config = model.config
    heads = sum(len(config.heads_in(layer)) for layer in range(config.n_layer))
    key_width = config.d_head + (config.rotary_width if config.attention == "latent" else 0)
    weights = sum(p.numel() for p in model.blocks.parameters() if p.dim() == 2) + model.output.weight.numel()
    return 2 * weights + 2 * seq * heads * (key_width + config.d_head)
