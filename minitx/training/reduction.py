"""Gradients of several processes → their sum, in each process.

What DistributedDataParallel does, but after the last backward pass, not beside it: as quick here (docs/scaling.md).
"""

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from minitx.training.parallel import Group, all_gather

BUCKET = 1 << 23
"""Numbers that are sent at once, if no parameter has more."""


class Reduction:
    """Adds up losses and gradients over the parts of an update, and over processes."""

    def __init__(self, group: Group, parameters: Sequence[Tensor], device: torch.device) -> None:
        self.group, self.parameters, self.loss = group, parameters, torch.zeros((), device=device)
        self.total: Tensor | None = None

    def add(self, loss: Tensor) -> None:
        """Count the loss of a part, after its backward pass."""
        self.loss += loss.detach()

    def finish(self) -> Tensor:
        """The loss over all parts and processes; every parameter then has the gradient of that."""
        if self.group.size > 1:
            gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
            sent = []  # each bucket travels while the next is filled
            for bucket in buckets([*gradients, self.loss]):
                flat = torch.cat([tensor.flatten() for tensor in bucket])
                sent.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
            for bucket, flat, work in sent:
                work.wait()
                for tensor, numbers in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
                    tensor.copy_(numbers.view_as(tensor))
        return self.loss


class OrderedReduction(Reduction):
    """Adds in the order of the rows, one row after the other, so that every number of processes gives the same bits."""

    def add(self, loss: Tensor) -> None:
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        row = torch.cat([*(gradient.flatten() for gradient in gradients), loss.detach().view(1)])
        rows = row[None]
        if self.group.size > 1:
            rows = row.new_empty(self.group.size, len(row))
            all_gather(rows.view(-1), row)
        self.total = torch.zeros_like(row) if self.total is None else self.total
        for row in rows:
            self.total += row
        for gradient in gradients:
            gradient.zero_()

    def finish(self) -> Tensor:
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        assert self.total is not None
        *totals, loss = self.total.split([*(gradient.numel() for gradient in gradients), 1])
        for gradient, total in zip(gradients, totals, strict=True):
            gradient.copy_(total.view_as(gradient))
        return loss[0]


class ShardedReduction(Reduction):
    """Adds up losses alone: `fully_shard` adds up the gradients of each part in its backward pass."""

    def finish(self) -> Tensor:
        dist.all_reduce(self.loss)
        return self.loss


def buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in groups of at most `BUCKET` numbers, or of one tensor."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    yield bucket


def reduction(group: Group, parameters: Sequence[Tensor], device: torch.device) -> Reduction:
    """The reduction that the settings ask for."""
    if group.is_sharded:
        return ShardedReduction(group, parameters, device)
    return (OrderedReduction if group.settings.deterministic else Reduction)(group, parameters, device)
