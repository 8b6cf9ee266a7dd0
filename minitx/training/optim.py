"""Parameters → groups → optimizers, and the learning rate of a step.

Muon takes the matrices of the blocks, whose updates it makes orthogonal; AdamW, PyTorch's own, everything else.
"""

from __future__ import annotations

from torch import nn
from torch.optim import Optimizer

from minitx.config import TrainConfig
from minitx.fast.compiler import plain_adamw, spare_the_compiler
from minitx.system.runtime import quickest_dtype
from minitx.training.muon import Muon


def split_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """The blocks' matrices, the other matrices (embedding, output) and the vectors (norms) of `model`.

    Every trainable parameter is in exactly one of the three.
    """
    hidden, outer, vectors = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            vectors.append(parameter)
        elif name.startswith("blocks."):
            hidden.append(parameter)
        else:
            outer.append(parameter)
    return hidden, outer, vectors


def build_optimizers(model: nn.Module, config: TrainConfig) -> list[Optimizer]:
    """The optimizers of a run. Only matrices decay; each group keeps its peak learning rate as `initial_lr`."""
    spare_the_compiler()
    hidden, outer, vectors = split_parameters(model)
    optimizers: list[Optimizer] = []
    if config.optimizer == "muon":
        optimizers.append(
            Muon(
                hidden,
                lr=config.muon_learning_rate,
                weight_decay=config.weight_decay,
                momentum=config.muon_momentum,
                dtype=quickest_dtype(next(model.parameters()).device),
            )
        )
        decayed = outer
    else:
        decayed = hidden + outer
    groups = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    betas = (config.beta1, config.beta2)
    optimizers.append(plain_adamw(groups, lr=config.learning_rate, betas=betas, fused=True))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"]
    return optimizers


def learning_rate_factor(step: int, config: TrainConfig) -> float:
    """Share of the peak learning rate at update `step`, counted from 0: linear warmup, plateau, linear decay to zero.

    Hägele et al. 2024 ("warmup-stable-decay").
    """
    warmup = min(1.0, (step + 1) / (config.warmup_steps + 1))
    decay_steps = config.decay_fraction * config.steps
    decay = min(1.0, (config.steps - step) / decay_steps) if decay_steps else 1.0
    return max(0.0, min(warmup, decay))


def set_learning_rate(optimizers: list[Optimizer], factor: float) -> None:
    """Give every group `factor` times its peak learning rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * factor
