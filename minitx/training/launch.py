"""How a process finds the others that a launcher, such as `torchrun`, started with it."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from minitx.config import ParallelConfig
from minitx.system.errors import UserError, require
from minitx.system.program import is_started_by_hand, launcher_has_gone
from minitx.training import faults
from minitx.training.parallel import FAULT, POLL, Group


def launched() -> bool:
    """Whether a launcher started several processes; raises UserError where it does not say which."""
    size = os.environ.get("WORLD_SIZE") or "1"
    require(size.isdecimal(), f"WORLD_SIZE is {size}: give the number of processes, or unset WORLD_SIZE.")
    if int(size) < 2:
        return False
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    example = f"torchrun --nproc_per_node {size} train.py …"
    are = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set"
    require(not missing, f"WORLD_SIZE is {size}, but {are}: start with {example}, or unset WORLD_SIZE.")
    for name, below in (("RANK", int(size)), ("MASTER_PORT", 2**16)):
        value = os.environ[name]
        require(value.isdecimal() and int(value) < below, f"{name} is {value}: give a number below {below}.")
    return True


def meeting_place(rank: int, timeout: int) -> PrefixStore:
    """The store of all processes, which the launcher or the first process holds; raises UserError if none answers."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    holds = rank == 0 and is_started_by_hand()
    end = time.monotonic() + timeout
    while not holds:  # in short tries, between which Python handles signals
        try:
            socket.create_connection((address, port), timeout=1).close()
            break
        except OSError:
            silent = f"The first process did not answer at {address}:{port} within {timeout} s (parallel.timeout)"
            require(time.monotonic() < end, f"{silent}: start it, or correct MASTER_ADDR and MASTER_PORT.")
            require(not launcher_has_gone(), "torchrun has ended.")
            time.sleep(POLL)
    made: list[TCPStore | Exception] = []

    def make() -> None:
        try:
            made.append(TCPStore(address, port, None, holds, timedelta(seconds=timeout), wait_for_workers=False))
        except Exception as error:
            made.append(error)

    threading.Thread(target=make, daemon=True).start()  # for it waits without end for a program of another kind
    taken = f"Another program seems to hold {address}:{port}: take another MASTER_PORT."
    while not made:
        require(time.monotonic() < end, taken)
        time.sleep(POLL / 10)
    if isinstance(made[0], dist.DistNetworkError):
        raise UserError(taken) from made[0]
    if isinstance(made[0], Exception):
        raise made[0]
    return PrefixStore(f"minitx-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", made[0])


def meet(group: Group) -> None:
    """Wait until all processes have come; raises UserError if some do not."""
    faults.register(group)
    places = [f"{faults.PLACE}{rank}" for rank in range(group.size)]
    end = time.monotonic() + group.settings.timeout
    while not group.store.check(places):
        came = sum(group.store.check([place]) for place in places) if time.monotonic() > end else group.size
        within = f"came within {group.settings.timeout} s (parallel.timeout)"
        remedy = "start the others with the same MASTER_ADDR and MASTER_PORT"
        require(came == group.size, f"{came} of {group.size} processes {within}: {remedy}.")
        require(not group.store.check([FAULT]), "Another process could not start.")  # and has said why
        time.sleep(POLL)


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
    group = Group(settings, rank, size, local_rank, local_size, meeting_place(rank, settings.timeout))
    try:
        meet(group)
        timeout, backend = timedelta(seconds=settings.timeout), "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        dist.init_process_group(backend, store=group.store, rank=rank, world_size=size, timeout=timeout)
        group.control = dist.new_group(backend="gloo", timeout=timeout) if on_gpu else dist.group.WORLD
        group.agree(0)  # all have connected: while one still does, another that ends would make gloo complain
        with ExitStack() as stack:
            if rank:
                nowhere = stack.enter_context(Path(os.devnull).open("w"))
                stack.enter_context(redirect_stdout(nowhere))
                stack.enter_context(redirect_stderr(nowhere))
            yield group
    except Exception as error:
        faults.tell_once(group, error)
    group.control = None  # threads of gloo that outlive what holds them can abort the process as it ends
    dist.destroy_process_group()
