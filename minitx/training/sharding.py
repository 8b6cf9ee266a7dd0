"""Models that fit into no process whole: each holds a part of every parameter, gradient and optimizer state.

PyTorch's `fully_shard` gathers the parameters of a block before it runs. For what needs the whole model, such as
heads, samples and checkpoints, the first process keeps a copy.
"""

from functools import partial

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.utils.checkpoint import checkpoint

from minitx.model import Transformer
from minitx.training.parallel import Group


def recompute_blocks(model: Transformer) -> None:
    """Keep only what enters each block, and compute the rest again when its gradient is due."""
    for block in model.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)


def shard(model: Transformer, group: Group, device: torch.device) -> None:
    """Leave this process its part of each parameter; gradients add up over processes, unscaled."""
    mesh = init_device_mesh(device.type, (group.size,))
    for module in (*model.blocks, model):
        fully_shard(module, mesh=mesh)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
