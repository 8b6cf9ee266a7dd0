"""The decoding step as one compiled program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from minitx.cache import KeyValueCache, LayerCache
from minitx.generation.decoder import Decoder, Product, is_plain, scaled
from minitx.model import Transformer


class PlainProduct(Product):
    """The same, left to the compiler, which turns the product with one vector into a loop over the matrix's rows. On a
    CPU one loop takes both halves of the matrix, for weights come from memory faster in two streams than in one."""

    def __init__(self, weight: Tensor, batch: int, norm: Tensor | None = None) -> None:
        self.weight = weight if norm is None else weight * scaled(norm)

    def __call__(self, x: Tensor) -> Tensor:
        if x.size(0) > 1:
            return F.linear(x, self.weight)
        x, streams = materialised(x), 1 if x.is_cuda else 2
        return torch.cat([(x * rows).sum(-1) for rows in self.weight.chunk(streams)])[None]


class CompiledDecoder(Decoder):
    """The same step as one compiled program. Its shapes never change, so that it serves every position: the position
    is a tensor, and heads look at the whole cache, with all that comes after the position hidden.

    Compiled once for a model's shape and a batch. On a GPU the program is a CUDA graph, which is recorded anew for
    every decoder, since it is tied to the memory of weights and cache.
    """

    product = PlainProduct

    @staticmethod
    def takes(model: Transformer, batch: int = 1) -> bool:
        """As `Decoder`, but on a GPU too, and on the CPU for one sequence only: it is no quicker with several."""
        return CompiledDecoder.why_not(model, batch) is None

    @staticmethod
    def why_not(model: Transformer, batch: int = 1) -> str | None:
        """What keeps it from standing in for `model`, to follow "not compiled"; None where nothing does."""
        kind = model.embedding.weight.device.type
        if not is_plain(model):
            return "only multi-head attention with all its heads can be"
        if kind == "cpu" and batch > 1:
            return "for one sample only, on the CPU"
        return None if kind in ("cpu", "cuda") else f"not on {kind}"

    def __init__(self, model: Transformer, batch: int = 1) -> None:
        super().__init__(model, batch)
        self.by_head: list[tuple[Tensor, Tensor]] = []
        """Keys and values of each layer, (batch, n_kv_head, capacity, d_head): the program reads them head by head."""
        layers: list[LayerCache | None] = []
        for layer in filter(None, model.new_cache(batch).layers):
            keys, values = (buffer.permute(1, 2, 0, 3).contiguous() for buffer in layer)
            self.by_head.append((keys, values))
            layers.append(LayerCache(keys.permute(2, 0, 1, 3), values.permute(2, 0, 1, 3)))
        self.cache = KeyValueCache(layers)
        """One cache for all texts, each in its turn: views of `by_head`."""
        self.position = torch.zeros(1, dtype=torch.long, device=model.embedding.weight.device)
        self.compiled = compiled_step(model.embedding.weight.device.type, torch.get_num_threads())
        if model.embedding.weight.is_cuda:
            keep_in_place(self.position, *weights_of(self), *(tensor for layer in self.by_head for tensor in layer))

    def __call__(self, tokens: Tensor, cache: KeyValueCache) -> Tensor:
        """As `Decoder`, on a GPU in memory that the next call writes again; the first call raises what torch.compile
        raises where it cannot compile. Raises ValueError for a cache that is not its own."""
        if cache is not self.cache:
            raise ValueError("a compiled decoder decodes from its own cache")
        logits = self.compiled(self, tokens, self.position.fill_(cache.length), self.by_head)
        cache.length += 1
        return logits

    def attend(self, query: Tensor, key: Tensor, value: Tensor, position: int | Tensor, past: Any) -> Tensor:
        keys, values = past
        keys.index_copy_(2, cast(Tensor, position), key[:, :, None])
        values.index_copy_(2, cast(Tensor, position), value[:, :, None])
        query = materialised(query).unflatten(1, (key.size(1), -1))  # (batch, n_kv_head, group, d_head)
        scores = (query[..., None, :] * keys[:, :, None]).sum(-1)  # (batch, n_kv_head, group, capacity)
        later = torch.arange(scores.size(-1), device=scores.device) > position
        pattern = scores.masked_fill(later, float("-inf")).softmax(-1)
        return (pattern[..., None] * values[:, :, None]).sum(-2).flatten(1)


@functools.cache
def compiled_step(device: str, threads: int) -> Callable[..., Tensor]:
    """`Decoder.step`, to be compiled at its first call on devices of this kind, for this number of CPU threads."""
    options: dict[str, str | int | bool | Callable[..., object]] = {"guard_filter_fn": guards_on_data}
    if device == "cuda":
        options["triton.cudagraphs"] = True
    else:  # said, for else a program that was compiled for another number of threads might be taken from the cache
        options["cpp.threads"] = threads
    return torch.compile(CompiledDecoder.step, fullgraph=True, dynamic=False, options=options)


DROPPED_GUARDS = {
    "BUILTIN_MATCH",
    "CLASS_MATCH",
    "CLOSURE_MATCH",
    "MODULE_MATCH",
    "NOT_PRESENT_IN_GENERIC_DICT",
    "TYPE_MATCH",
}


def guards_on_data(guards: Sequence[Any]) -> list[bool]:
    """Which of Dynamo's guards are checked at every token: those on tensors and settings, in which decoders differ.
    Those on functions and classes always hold here, and take up to a twelfth of a token's time."""
    return [guard.guard_type not in DROPPED_GUARDS for guard in guards]


def materialised(x: Tensor) -> Tensor:
    """x, which begins where its memory does, computed before what reads it. By itself the compiler would compute it
    anew for every row of a matrix: it joins operations into one loop wherever it can, but asked for a view by strides
    it needs x in memory."""
    x = x.contiguous()  # as the compiler lays out what it computes
    return x.as_strided(x.size(), x.stride())


def keep_in_place(*tensors: Tensor) -> None:
    """Promise that tensors stay where they are in memory: a CUDA graph copies all others before each replay."""
    for tensor in tensors:
        torch._dynamo.mark_static_address(tensor, guard=False)


def weights_of(decoder: Decoder) -> list[Tensor]:
    """Its matrices, norms and tables; the embedding, which it takes from the model, is known to stay."""
    products = [decoder.unembed]
    for block in decoder.blocks:
        products += [block.query_key_value, block.output, block.gate_up, block.down]
    norms = [block.head_norm for block in decoder.blocks if block.head_norm is not None]
    return [product.weight for product in products] + norms + [*decoder.epsilon.values(), *decoder.rotary]
