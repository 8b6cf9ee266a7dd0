"""Tokens → batches: training windows in a random order that can be resumed exactly, validation windows in order.

Which windows an update takes depends on (seed, update) alone, however many processes share them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from minitx.config import ModelConfig
from minitx.data.token_files import Tokens, require_window
from minitx.system.errors import require

Windows = tuple[torch.Tensor, torch.Tensor]
"""Inputs, and as targets the inputs one token later, int64 (batch, seq)."""
Batch = tuple[torch.Tensor, ...]
"""Windows, and with dropout a third: what it keeps, as `Transformer.residual` takes it."""
RESIDENT_SHARE = 10  # tokens stay on a GPU if they take at most one part in this many of its memory
RESIDENT_PIECE = 1 << 24  # tokens that are copied to the GPU at once


@dataclass(frozen=True)
class Share:
    """The rows of each update that one process takes: every `processes`-th, in `parts` batches."""

    rows: int
    """Rows of an update over all processes, a multiple of `processes`."""
    parts: int = 1
    process: int = 0
    processes: int = 1


@dataclass(frozen=True)
class Dropout:
    """What dropout keeps of a row: drawn from its seed and its place in the data, whoever computes it."""

    rate: float
    shape: tuple[int, ...]
    """Of a row: (layer, 2, seq, d_model)."""

    def kept(self, seed: int, rows: Sequence[tuple[int, int]], device: torch.device | None) -> torch.Tensor:
        """(row, layer, 2, seq, d_model), True where a value is kept, for `rows` of (epoch, position)."""
        random = torch.Generator(device or "cpu")
        kept = torch.empty(len(rows), *self.shape, dtype=torch.bool, device=device)
        for row, place in zip(kept, rows, strict=True):
            random.manual_seed(int(np.random.SeedSequence([seed, *place]).generate_state(1, np.uint64)[0] >> 1))
            row.bernoulli_(1 - self.rate, generator=random)
        return kept


def dropout_of(model: ModelConfig) -> Dropout | None:
    """What draws the dropout of a model, if it has any."""
    return Dropout(model.dropout, (model.n_layer, 2, model.context_length, model.d_model)) if model.dropout else None


class Batches:
    """Training windows without replacement, in an order that depends on (seed, epoch) alone.

    An epoch takes the windows from a random phase below `context_length` on. So it sees every token from there to the
    last whole window once. A batch may span two epochs. If `device` is a GPU with room for the tokens, it keeps them
    and cuts the batches; otherwise batches are on the CPU. By default `share` is all of the `batch_size` rows.
    """

    def __init__(
        self,
        tokens: Tokens,
        context_length: int,
        batch_size: int,
        seed: int,
        device: torch.device | None = None,
        share: Share | None = None,
        dropout: Dropout | None = None,
    ) -> None:
        require_window(tokens, context_length)
        on_device = resident(tokens, device)
        self._tokens = tokens if on_device is None else on_device
        self._context_length, self._seed, self._device = context_length, seed, device
        self._share, self._dropout = share or Share(batch_size), dropout
        self._waiting: list[list[tuple[int, int, int]]] = []  # parts of the update under way
        self._start_epoch(0)

    def next(self) -> Batch:
        """The next part of this process's rows; after its last part, those of the next update follow."""
        if not self._waiting:
            self._waiting = self._take(self._share)
        places = self._waiting.pop(0)
        batch = windows(self._tokens, [start for start, *_ in places], self._context_length)
        if self._dropout is None:
            return batch
        rows = [(epoch, position) for _, epoch, position in places]
        return *batch, self._dropout.kept(self._seed, rows, self._device)

    def rows(self) -> torch.Tensor:
        """The inputs (row, seq) of all processes for the next update."""
        places = self._take(Share(self._share.rows))[0]
        return windows(self._tokens, [start for start, *_ in places], self._context_length)[0]

    def _take(self, share: Share) -> list[list[tuple[int, int, int]]]:
        """(start, epoch, position) of each row of the next update, in parts; at the end of an epoch the next begins."""
        places: list[tuple[int, int, int]] = []
        while len(places) < share.rows:
            if self._position == len(self._starts):
                self._start_epoch(self._epoch + 1)
            more = self._starts[self._position : self._position + share.rows - len(places)].tolist()
            places += [(start, self._epoch, self._position + i) for i, start in enumerate(more)]
            self._position += len(more)
        own = places[share.process :: share.processes]
        size = -(-len(own) // share.parts)
        return [own[first : first + size] for first in range(0, len(own), size)]

    def state(self) -> dict[str, int]:
        """Where the next update starts: the epoch, and how many of its windows are used."""
        return {"epoch": self._epoch, "position": self._position}

    def restore(self, state: dict[str, int]) -> None:
        """Go on from what `state` returned; raises `UserError` if that does not fit these tokens."""
        self._start_epoch(state["epoch"])
        require(
            0 <= state["position"] <= len(self._starts),
            f"Data position {state['position']} lies outside the {len(self._starts)} windows of an epoch: the text or "
            "context_length changed since the checkpoint; restore it, or start a new run with --init_from.",
        )
        self._position = state["position"]

    def _start_epoch(self, epoch: int) -> None:
        random = np.random.default_rng([self._seed, epoch])
        # Every phase leaves at least one whole window and the target after it.
        phase = int(random.integers(min(self._context_length, len(self._tokens) - self._context_length)))
        count = (len(self._tokens) - 1 - phase) // self._context_length
        self._epoch, self._position, self._waiting = epoch, 0, []
        self._starts: Tokens = phase + self._context_length * random.permutation(count)


def validation_windows(tokens: Tokens, context_length: int, batch_size: int) -> Iterator[Windows]:
    """Batches over all of `tokens` in order: every token but the first is a target once.

    Tokens after the last whole window come as a batch of one shorter window.
    """
    whole, rest = divmod(len(tokens) - 1, context_length)
    starts = range(0, whole * context_length, context_length)
    for first in range(0, whole, batch_size):
        yield windows(tokens, starts[first : first + batch_size], context_length)
    if rest:
        yield windows(tokens, [whole * context_length], rest)


def windows(tokens: Tokens | torch.Tensor, starts: Sequence[int], length: int) -> Windows:
    """A batch of the windows of `length` tokens at `starts`; a GPU cuts them itself if it holds `tokens`."""
    if isinstance(tokens, torch.Tensor):
        first = torch.tensor(starts, pin_memory=tokens.is_cuda).to(tokens.device, non_blocking=True)
        rows = tokens[first[:, None] + torch.arange(length + 1, device=tokens.device)].long()  # (batch, length + 1)
    else:
        rows = torch.from_numpy(np.stack([tokens[start : start + length + 1] for start in starts]).astype(np.int64))
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def resident(tokens: Tokens, device: torch.device | None) -> torch.Tensor | None:
    """`tokens` as int32 on `device`; None if that is no CUDA device, or if they take too much of its memory."""
    if device is None or device.type != "cuda":
        return None
    free, memory = torch.cuda.mem_get_info(device)
    if 4 * len(tokens) > min(free / 2, memory / RESIDENT_SHARE):  # bytes
        return None
    copy = torch.empty(len(tokens), dtype=torch.int32, device=device)
    for start in range(0, len(tokens), RESIDENT_PIECE):
        piece = tokens[start : start + RESIDENT_PIECE].astype(np.int32)
        copy[start : start + len(piece)] = torch.from_numpy(piece)
    return copy
