"""Cross-entropy, a block of tokens at a time. The textbook line is `F.cross_entropy`.

That passes over all logits nine times, forwards and backwards, through memory and in float32. `CPUCrossEntropy` works
on as many tokens as fit into the processor's cache, and takes the gradient at once: it is softmax less one-hot.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 2**19
"""Logits in a block: 2 MB in float32."""


def cross_entropy(logits: Tensor, targets: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy in nats of logits (token, vocab_size) against targets (token), computed in float32."""
    trains = logits.requires_grad and reduction == "mean" and not torch.compiler.is_compiling()
    if trains and logits.device.type == "cpu":
        return CPUCrossEntropy.apply(logits, targets)
    return F.cross_entropy(logits.float(), targets, reduction=reduction)


class CPUCrossEntropy(torch.autograd.Function):
    """The mean over all tokens of log Σ exp(x) − x[target]."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        gradient, n_token, losses = torch.empty_like(logits), len(logits), []
        rows = max(1, BLOCK // logits.size(1))
        for block, target, result in zip(*(x.split(rows) for x in (logits, targets[:, None], gradient)), strict=True):
            x = block.float()
            pattern = x.softmax(dim=1)  # (token, vocab_size); its largest entry is exp(max x) / Σ exp(x)
            losses.append(x.amax(1) - pattern.amax(1).log_() - x.gather(1, target)[:, 0])
            one_hot = pattern.new_ones(target.shape)
            result.copy_(pattern.scatter_add_(1, target, -one_hot).mul_(1 / n_token))
        ctx.save_for_backward(gradient)
        return torch.cat(losses).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient if grad == 1 else gradient * grad.to(gradient.dtype), None
