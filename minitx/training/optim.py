"""Parameters → groups → optimizers, and the learning rate of a step.

Muon takes the matrices of the blocks, whose updates it makes orthogonal; AdamW, PyTorch's own, everything else.
"""

import torch
from torch import Tensor
from torch.optim import Optimizer

from minitx.attention import MultiHeadAttention
from minitx.config import TrainConfig
from minitx.fast.compiler import plain_adamw
from minitx.model import Transformer
from minitx.training.muon import Muon
from minitx.training.parallel import ALONE, Group


def split_parameters(model: Transformer) -> tuple[list[Tensor], ...]:
    """The blocks' matrices, the embedding, other matrices (the output) and vectors (norms): every parameter once.

    An embedding that is the output matrix too counts as that.
    """
    blocks: list[Tensor] = [p for p in model.blocks.parameters() if p.dim() > 1]
    embedding: list[Tensor] = [] if model.config.tie_embeddings else [model.embedding.weight]
    taken = {id(p) for p in blocks + embedding}
    outer: list[Tensor] = [p for p in model.parameters() if p.dim() > 1 and id(p) not in taken]
    vectors: list[Tensor] = [p for p in model.parameters() if p.dim() < 2]
    return blocks, embedding, outer, vectors


def build_optimizers(
    model: Transformer, config: TrainConfig, dtype: torch.dtype = torch.float32, group: Group = ALONE
) -> list[Optimizer]:
    """The optimizers of a run; Muon's iteration runs in `dtype`, that of the run's matrix products.

    The processes of `group` share Muon's work. Only matrices decay; each parameter group keeps its peak learning rate
    as `initial_lr`.
    """
    blocks, embedding, outer, vectors = split_parameters(model)
    decay, rate = config.weight_decay, config.learning_rate
    optimizers: list[Optimizer] = []
    if config.optimizer == "muon":
        rows = head_rows(model)
        optimizers.append(Muon(blocks, config.muon_learning_rate, decay, config.muon_momentum, dtype, rows, group))
    groups = [
        *([] if optimizers else [{"params": blocks, "weight_decay": decay}]),
        {"params": embedding, "weight_decay": decay, "lr": config.embedding_learning_rate or rate},
        {"params": outer, "weight_decay": decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    betas = (config.beta1, config.beta2)
    optimizers.append(plain_adamw(groups, lr=rate, betas=betas, fused=True))
    for optimizer in optimizers:
        for options in optimizer.param_groups:
            options["initial_lr"] = options["lr"]
    return optimizers


def head_rows(model: Transformer) -> dict[Tensor, int]:
    """The width of a head, for the queries and keys of multi-head attention.

    Their heads compare in subspaces of their own, so Muon takes each apart (docs/notes.md has the gain).
    """
    attentions = [module for module in model.modules() if isinstance(module, MultiHeadAttention)]
    return {matrix.weight: module.d_head for module in attentions for matrix in (module.query, module.key)}


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Share of the peak rate at update `step`, from 0: linear warmup, plateau, linear decay (Hägele et al. 2024)."""
    warmup = min(1.0, (step + 1) / (config.warmup_steps + 1))
    decay_steps = config.decay_fraction * config.steps
    decay = min(1.0, (config.steps - step) / decay_steps) if decay_steps else 1.0
    return max(0.0, min(warmup, decay))


def set_learning_rate(optimizers: list[Optimizer], factor: float) -> None:
    """Give every group `factor` times its peak learning rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
