"""Counters around real training: bytes that autograd keeps, bytes alive at the peak, operations, collectives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def kept_bytes(function: Callable[[], Tensor], known: Iterable[Tensor]) -> int:
    """Bytes that autograd keeps of `function`, storages of `known` tensors aside."""
    seen = {tensor.untyped_storage()._cdata: tensor.untyped_storage() for tensor in known}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in seen:
            kept[storage._cdata] = storage  # which keeps its address from being used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function()
    return sum(storage.nbytes() for storage in kept.values())


class Peak(TorchDispatchMode):
    """The most bytes of tensors that were alive after any operation, of those that operations made.

    known: tensors that were there before; views of them do not count.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.known = {StorageWeakRef(tensor.untyped_storage()).cdata for tensor in known}
        self.alive: dict[int, StorageWeakRef] = {}
        self.most = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                own = getattr(
                    tensor, "_local_tensor", tensor
                )  # of a DTensor, whose own storage is as large as all shards
                reference = StorageWeakRef(own.untyped_storage())
                if reference.cdata not in self.known:
                    self.alive[reference.cdata] = reference
        total = 0
        for address, reference in list(self.alive.items()):
            storage = torch.UntypedStorage._new_with_weak_ptr(reference.cdata)
            if storage is None:
                del self.alive[address]
            else:
                total += storage.nbytes()  # 0 once FSDP has freed it
        self.most = max(self.most, total)
        return result


class Operations(TorchDispatchMode):
    """How often each operation was started, and bytes by collective: all that is gathered or scattered."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.bytes, self.calls = Counter[str](), Counter[str](), Counter[str]()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = operation._opname
        self.count[name] += 1
        if operation.namespace == "c10d":
            sizes = [t.nbytes for t in tree_leaves(args) if isinstance(t, Tensor)]
            self.bytes[name] += max(sizes)
            self.calls[name] += 1
        return operation(*args, **(kwargs or {}))
