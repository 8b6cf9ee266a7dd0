"""The decoding step as one compiled program."""

import functools
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from minitx.cache import KeyValueCache, LayerCache
from minitx.fast.compiler import compile_step, keep_in_place, materialised
from minitx.fast.linear import PackedLinear
from minitx.generation.decoder import Decoder
from minitx.model import Transformer


class CompiledLinear(PackedLinear):
    """x Wᵀ for the compiler, which turns the product with one vector into a loop over the rows of W.

    On a CPU one loop takes both halves of W: two streams bring weights from memory faster than one.
    """

    def __init__(self, weight: Tensor, n_vectors: int) -> None:
        self.weight = weight

    def __call__(self, x: Tensor) -> Tensor:
        if x.size(0) > 1:
            return F.linear(x, self.weight)
        x, streams = materialised(x), 1 if x.is_cuda else 2
        return torch.cat([(x * rows).sum(-1) for rows in self.weight.chunk(streams)])[None]


class CompiledDecoder(Decoder):
    """The step as one program. Its shapes never change, so it serves every position: the position is a tensor, and
    heads read the whole cache with all later positions hidden.

    It is compiled once for a model's shape and a batch. On a GPU the program is a CUDA graph. Every decoder records
    its graph anew, because a graph is tied to the memory of weights and cache.
    """

    linear = CompiledLinear
    devices = ("cpu", "cuda")

    @classmethod
    def why_not(cls, model: Transformer, batch: int = 1) -> str | None:
        """As `Decoder`, to follow "not compiled"; on the CPU it is no quicker with several sequences."""
        alone = batch == 1 or model.embedding.weight.device.type != "cpu"
        return super().why_not(model, batch) or (None if alone else "for one sample only, on the CPU")

    def __init__(self, model: Transformer, batch: int = 1) -> None:
        super().__init__(model, batch)
        weight, config = model.embedding.weight, model.config
        shape = batch, config.kv_heads, config.context_length, config.d_head
        new = functools.partial(torch.zeros, shape, dtype=weight.dtype, device=weight.device)
        self.past = [(new(), new()) for _ in model.blocks]
        """Keys and values of each layer, (batch, n_kv_head, capacity, d_head): the program reads them head by head."""
        self.cache = KeyValueCache([LayerCache(*(x.permute(2, 0, 1, 3) for x in layer)) for layer in self.past])
        self.position = torch.zeros(1, dtype=torch.long, device=weight.device)
        self.compiled = compiled_step(weight.device.type, torch.get_num_threads())
        if weight.is_cuda:
            keep_in_place(self.position, *weights_of(self), *(tensor for layer in self.past for tensor in layer))

    def new_cache(self, capacity: int | None = None) -> KeyValueCache:
        """The one cache of the program, emptied, as long as the model's context: texts take turns."""
        self.cache.clear()
        return self.cache

    def __call__(self, tokens: Tensor, cache: KeyValueCache) -> Tensor:
        """As `Decoder`; on a GPU the logits stay valid until the next call.

        The first call raises what torch.compile raises if it cannot compile. Raises ValueError for a cache that is not
        from `new_cache`.
        """
        if cache is not self.cache:
            raise ValueError("a compiled decoder decodes from its own cache")
        logits = self.compiled(self, tokens, self.position.fill_(cache.length), self.past)
        cache.length += 1
        return logits

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, position: int | Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """As `Decoder`, with keys and values (batch, n_kv_head, capacity, d_head)."""
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
    if device == "cuda":
        return compile_step(CompiledDecoder.step, {"triton.cudagraphs": True})
    # Without the number, torch may take a program for another number of threads from its cache.
    return compile_step(CompiledDecoder.step, {"cpp.threads": threads})


def weights_of(decoder: Decoder) -> list[Tensor]:
    """The decoder's matrices, norms and tables. The compiler knows that the model's own tensors stay in place."""
    parts = [decoder.unembed, *(part for block in decoder.blocks for part in vars(block).values())]
    weights = [part.weight if isinstance(part, PackedLinear) else part for part in parts if part is not None]
    return [*weights, *decoder.epsilon.values(), *decoder.rotary]
