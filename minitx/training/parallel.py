"""The processes that train one run together: who takes which rows, what they add up, who writes.

`torchrun` starts them and says in the environment who is who. Alone, a process is a `Group` of one, whose methods do
nothing more than their first line.
"""

import math
import pickle
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from minitx.config import ParallelConfig, TrainConfig
from minitx.data.batches import Share
from minitx.system.errors import UserError, require
from minitx.system.program import launcher_has_gone
from minitx.system.signals import Stopped, StopRequest

T = TypeVar("T")

all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor  # the name before torch 2.13
POLL = 0.2  # seconds between looks at the store
FAULT = "minitx/fault"  # in the store once a process has told of a fault


@dataclass
class Group:
    """The processes of a run, and which of them this is."""

    settings: ParallelConfig = field(default_factory=ParallelConfig)
    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    store: Any = None
    control: Any = None
    """Process group for objects and flags, which stay on the CPU."""
    way_on: str = ""
    """What to say after a fault, once there is a run to resume."""

    @property
    def is_first(self) -> bool:
        """Whether this process writes the run folder and speaks."""
        return self.rank == 0

    def share(self, train: TrainConfig) -> Share:
        """The rows of an update that this process takes: at most `batch_size` at a time; one, if deterministic."""
        rows = train.batch_size * train.grad_accum
        own = rows // self.size
        parts = own if self.settings.deterministic else math.ceil(own / train.batch_size)
        return Share(rows, parts, self.rank, self.size)

    def agree(self, number: int) -> int:
        """The largest of the processes' numbers."""
        if self.size > 1:
            flag = torch.tensor(number)
            dist.all_reduce(flag, dist.ReduceOp.MAX, group=self.control)
            return int(flag)
        return number

    def stopped(self, stop: StopRequest) -> bool:
        """Whether a signal has come to any process, or its launcher has gone; all of them then have it in `stop`.

        One that comes meanwhile counts the next time.
        """
        stop.signal = self.agree(stop.noted or (signal.SIGTERM if launcher_has_gone() else 0)) or None
        return stop.signal is not None

    def check(self, stop: StopRequest) -> None:
        """Raise `Stopped` in all processes, if a signal has come to any."""
        if self.stopped(stop):
            raise Stopped

    def first(self, function: Callable[[], T]) -> T:
        """What `function` returns or raises in the first process, which alone calls it."""
        if self.size == 1:
            return function()
        answer: tuple[Any, Exception | None] = (None, None)
        if self.is_first:
            try:
                answer = (function(), None)
            except Exception as error:
                self.broadcast((None, portable(error)))
                raise
        value, fault = self.broadcast(answer)
        if fault is not None:
            raise fault
        return value

    def broadcast(self, content: Any) -> Any:
        """`content` of the first process."""
        box = [content if self.is_first else None]
        dist.broadcast_object_list(box, src=0, group=self.control, device=torch.device("cpu"))
        return box[0]

    def gathered(self, content: T) -> list[T]:
        """`content` of every process, in order."""
        if self.size == 1:
            return [content]
        contents: list[Any] = [None] * self.size
        dist.all_gather_object(contents, content, group=self.control)
        return contents

    def shared_out(self, items: Iterable[T]) -> Iterator[tuple[T, bool]]:
        """Every `size`-th of `items`, and whether it counts: all processes get as many, so some get one twice."""
        if self.size == 1:
            yield from ((item, True) for item in items)
            return
        own, at = None, -1
        for at, item in enumerate(items):
            if own is None or at % self.size == self.rank:
                own = item
            if at % self.size == self.size - 1:
                yield own, True
        if (left := (at + 1) % self.size) and own is not None:
            yield own, self.rank < left

    def sum_in_order(self, numbers: Sequence[float]) -> float:
        """The sum of what `shared_out` made of each item, added up in the order of the items."""
        columns = self.gathered(list(numbers))
        rounds = max(map(len, columns))
        return sum(column[i] for i in range(rounds) for column in columns if i < len(column))

    def in_parts(self, function: Callable[[Tensor], Tensor], matrices: Tensor) -> Tensor:
        """`function` of (matrix, row, column), of which each process computes a part."""
        if self.size == 1:
            return function(matrices)
        count, share = len(matrices), math.ceil(len(matrices) / self.size)
        own = matrices[self.rank * share : (self.rank + 1) * share]
        result = function(own) if len(own) else own
        if count < self.size:  # a sum moves less than one matrix for each process
            whole = torch.zeros_like(matrices)
            whole[self.rank : self.rank + len(own)] = result
            dist.all_reduce(whole)
            return whole
        if len(own) < share:
            result = torch.cat((result, result.new_zeros(share - len(own), *result.shape[1:])))
        whole = result.new_empty(share * self.size, *result.shape[1:])
        all_gather(whole, result.contiguous())
        return whole[:count]

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds a part of every parameter."""
        return self.settings.shard and self.size > 1

    def whole(self, tensor: Tensor) -> Tensor:
        """All of a tensor; where each process holds a part, all of them must ask for it."""
        from_parts: Callable[[], Tensor] | None = getattr(tensor, "full_tensor", None)
        return tensor if from_parts is None else from_parts()

    def part_like(self, value: Tensor, parameter: Tensor) -> Tensor:
        """The part of `value`, which is whole, that this process holds of `parameter`."""
        if not self.is_sharded or value.shape != parameter.shape:
            return value
        from torch.distributed.tensor import DTensor, distribute_tensor

        assert isinstance(parameter, DTensor)
        mesh, placements = parameter.device_mesh, parameter.placements
        return distribute_tensor(value.to(parameter.device), mesh, placements, src_data_rank=None)

    def after_first(self, function: Callable[[], T]) -> T:
        """Call `function` in the first process of each machine, then in the others, for as long as it takes."""
        if self.size == 1:
            return function()
        ready = f"minitx/ready/{self.rank - self.local_rank}"
        if self.local_rank:
            while not self.store.check([ready]):
                require(not self.store.check([FAULT]), "The first process could not do it.")  # and has said why
                time.sleep(POLL)
        result = function()
        if not self.local_rank:
            self.store.set(ready, "")
        return result

    def check_same(self, facts: dict[str, str]) -> None:
        """Raise UserError where `facts` are not the same in all processes."""
        first, *_ = everywhere = self.gathered(facts)
        for rank, others in enumerate(everywhere):
            odd = ", ".join(name for name, value in others.items() if first[name] != value)
            what = f"Process {rank + 1} of {self.size} differs from process 1 in its {odd}"
            require(not odd, f"{what}: start all processes with the same command, code and versions.")

    def check_divides(self, train: TrainConfig) -> None:
        """Raise UserError where the rows of an update cannot be shared out evenly."""
        rows = train.batch_size * train.grad_accum
        near = max(1, round(train.batch_size / self.size)) * self.size
        require(
            rows % self.size == 0,
            f"{self.size} processes cannot share train.batch_size {train.batch_size} × train.grad_accum "
            f"{train.grad_accum} = {rows} rows evenly: take train.batch_size {near}, or another number of processes.",
        )


def portable(error: Exception) -> Exception:
    """`error`, or its sentence, as something that can be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return UserError(str(error))


ALONE = Group()
