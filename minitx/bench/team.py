"""Processes that train one shape together: they wait for their turn, asleep, and then time a step by part."""

import contextlib
import copy
import math
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.connection import Connection
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.nn.parallel import DistributedDataParallel

from minitx.bench.shapes import Shape
from minitx.bench.steps import random_tokens
from minitx.bench.suite import Bench
from minitx.bench.training import our_training
from minitx.config import ParallelConfig
from minitx.system.errors import UserError
from minitx.system.runtime import choose_runtime
from minitx.system.timing import synchronise
from minitx.training.launch import joined
from minitx.training.loop import LossOf, evaluate, training_loss
from minitx.training.muon import Muon
from minitx.training.optim import build_optimizers, set_learning_rate
from minitx.training.parallel import Group
from minitx.training.reduction import Reduction, reduction

COMPUTE, REDUCTION, CLIPPING, MUON, ADAMW = "forward and backward", "reduction", "clipping", "Muon", "AdamW"
PARTS = (COMPUTE, REDUCTION, CLIPPING, MUON, ADAMW)
STEP, EVALUATION = "whole step", "evaluation of a batch"
MUON_ALONE = "Muon, in every process"
OURS, TORCHS = "gradients, minitx", "gradients, DistributedDataParallel"


class Lap(NamedTuple):
    """Seconds from when all processes begin a part to when all have ended it, and CPU seconds of all together.

    Other programs on the machine hardly add to the CPU seconds.
    """

    seconds: float
    cpu: float


Laps = dict[str, Lap]
"""By part."""


class Member:
    """One of the processes, with a training of its own."""

    def __init__(self, bench: Bench, shape: Shape, group: Group, threads: int) -> None:
        given, seed, train = bench.runtime, bench.settings.seed, shape.train
        self.group, self.runtime = group, choose_runtime(str(given.device), given.precision, given.compile, threads)
        tokens = random_tokens(shape, seed)
        self.training = our_training(shape, tokens, self.runtime, seed, group)
        self.eval_batches = math.lcm(*bench.settings.process_counts)
        self.eval_tokens = tokens[: self.eval_batches * train.batch_size * shape.model.context_length + 1]
        alone = build_optimizers(self.training.model, train, self.runtime.dtype)
        self.muon_alone = [optimizer for optimizer in alone if isinstance(optimizer, Muon)]
        set_learning_rate([*self.training.optimizers, *alone], 0.0)
        if group.size > 1:
            model = copy.deepcopy(self.training.model)
            with warnings.catch_warnings(action="ignore", category=FutureWarning):  # 2.13 renames an argument
                self.torchs = DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)
            mean_loss = self.runtime.compiled(training_loss(self.torchs))
            self.torchs_loss: LossOf = lambda *batch: group.size * mean_loss(*batch)  # of which it takes the mean

    def wait(self) -> None:
        """Until all processes are here."""
        synchronise(self.runtime.device)
        if self.group.size > 1:
            dist.barrier(group=self.group.control)

    def laps(self) -> Laps:
        """One step by part, then other ways to the same, and then a whole step as training makes it."""
        training, spent = self.training, Laps()

        def lap(part: str, call: Callable[[], object], times: int = 1) -> None:
            self.wait()
            began, cpu_began = time.perf_counter(), time.process_time()
            call()
            self.wait()
            spent[part] = Lap((time.perf_counter() - began) / times, (time.process_time() - cpu_began) / times)

        sums = self.sums()
        lap(COMPUTE, lambda: self.backward(sums))
        lap(REDUCTION, sums.finish)
        limit = training.shape.train.grad_clip or math.inf
        lap(CLIPPING, lambda: torch.nn.utils.clip_grad_norm_(training.parameters, limit))
        for optimizer in training.optimizers:
            lap(MUON if isinstance(optimizer, Muon) else ADAMW, optimizer.step)
        for optimizer in self.muon_alone:
            lap(MUON_ALONE, optimizer.step)
        training.model.zero_grad()
        evaluation = partial(evaluate, training.model, self.eval_tokens, training.shape.train.batch_size, self.runtime)
        lap(EVALUATION, partial(evaluation, group=self.group), self.eval_batches)
        if self.group.size > 1:
            lap(OURS, self.gradients)
            training.model.zero_grad()
            lap(TORCHS, self.backward)
            self.torchs.zero_grad()
        lap(STEP, training.step)
        everywhere = self.group.gathered(spent)
        return {part: Lap(own.seconds, sum(laps[part].cpu for laps in everywhere)) for part, own in spent.items()}

    def sums(self) -> Reduction:
        """What adds an update's gradients up."""
        return reduction(self.group, self.training.parameters, self.runtime.device)

    def backward(self, sums: Reduction | None = None) -> None:
        """The gradients of this process's rows, for `sums`; or those of all rows, by DistributedDataParallel."""
        share = self.group.share(self.training.shape.train)
        loss_of = self.training.loss_of if sums else self.torchs_loss
        for part in range(share.parts):
            batch = tuple(map(self.runtime.move, self.training.batches.next()))
            sends = sums is not None or part == share.parts - 1
            with contextlib.nullcontext() if sends else self.torchs.no_sync(), self.runtime.autocast():
                loss = loss_of(*batch) * (len(batch[0]) / share.rows)
            loss.backward()
            if sums is not None:
                sums.add(loss)

    def gradients(self) -> None:
        """The gradients of all rows and their loss."""
        sums = self.sums()
        self.backward(sums)
        sums.finish()


def serve(turns: Connection, places: dict[str, str], bench: Bench, shape: Shape, threads: int) -> None:
    """Be a process of a team: at each message of the parent, measure; the first process answers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its teams
    os.environ.update(places)
    with joined(ParallelConfig(), str(bench.runtime.device)) as group, contextlib.suppress(EOFError):
        answer(turns, Member(bench, shape, group, threads), group)


def answer(turns: Connection, member: Member, group: Group) -> None:
    """Measure at each message. The member is gone before its group, whose end its threads could hold up."""
    while turns.recv():
        laps = member.laps()
        if group.is_first:
            turns.send(laps)


@contextlib.contextmanager
def team(bench: Bench, shape: Shape, count: int, threads: int, laps: list[Laps]) -> Iterator[Callable[[], float]]:
    """`count` processes of `threads` threads each, and the call that lets them measure once, into `laps`.

    The call returns the seconds of the whole step; it raises UserError if a process has ended.
    """
    context, processes, pipes = multiprocessing.get_context("spawn"), [], []
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {"WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port}
    shared |= {"TORCHELASTIC_USE_AGENT_STORE": True, "OMP_NUM_THREADS": threads}
    os.environ["PYTHONSAFEPATH"] = "1"  # else a new process looks for modules in the current folder first
    for rank in range(count):
        pipe, theirs = context.Pipe()
        places = {name: str(value) for name, value in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()}
        process = context.Process(target=serve, args=(theirs, places, bench, shape, threads), daemon=True)
        process.start()
        theirs.close()
        processes.append(process)
        pipes.append(pipe)
    del os.environ["PYTHONSAFEPATH"]

    def measure() -> float:
        try:
            for pipe in pipes:
                pipe.send(True)
            laps.append(pipes[0].recv())
        except (EOFError, OSError) as error:
            raise UserError(f"One of {count} processes ended before it had measured: take fewer.") from error
        return laps[-1][STEP].seconds

    try:
        yield measure
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.join(10)
            process.kill()
