"""How a process finds the others that a launcher, such as `torchrun`, started with it."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from minitx.config import ParallelConfig
from minitx.system.errors import require
from minitx.training import faults
from minitx.training.parallel import Group


def launched() -> bool:
    """Whether a launcher started several processes; raises UserError where it says only how many."""
    size = os.environ.get("WORLD_SIZE", "1")
    if not size.isdecimal() or int(size) < 2:
        return False
    names = ("RANK", "MASTER_ADDR", "MASTER_PORT")
    missing = ", ".join(name for name in names if not os.environ.get(name))
    example = f"torchrun --nproc_per_node {size} train.py …"
    require(not missing, f"WORLD_SIZE is {size}, but {missing} is not set: start with {example}, or unset WORLD_SIZE.")
    return True


@contextmanager
def joined(settings: ParallelConfig, device: str) -> Iterator[Group]:
    """The group of all processes that a launcher started; only the first of them prints.

    device: as `Config.device`; each process on a machine with CUDA takes a GPU of its own.
    """
    if not launched():
        yield Group(settings)
        return
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    local_rank, local_size = int(os.environ.get("LOCAL_RANK", rank)), int(os.environ.get("LOCAL_WORLD_SIZE", size))
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        gpus = torch.cuda.device_count()
        require(local_rank < gpus, f"{local_size} processes need as many GPUs, but this machine has {gpus}.")
        torch.cuda.set_device(local_rank)
    timeout = timedelta(seconds=settings.timeout)
    store, _, _ = next(rendezvous("env://", timeout=timeout))
    store = PrefixStore(f"minitx-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=timeout)
    control = dist.new_group(backend="gloo", timeout=timeout) if on_gpu else dist.group.WORLD
    group = Group(settings, rank, size, local_rank, local_size, store, control)
    faults.register(group)
    try:
        with ExitStack() as stack:
            if rank:
                nowhere = stack.enter_context(Path(os.devnull).open("w"))
                stack.enter_context(redirect_stdout(nowhere))
                stack.enter_context(redirect_stderr(nowhere))
            yield group
    except Exception as error:
        faults.tell_once(group, error)
    dist.destroy_process_group()
