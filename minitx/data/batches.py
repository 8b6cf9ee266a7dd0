"""Tokens → batches: training windows in a random order that can be resumed exactly, validation windows in order."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from minitx.data.token_files import Tokens, require_window
from minitx.system.errors import require

Batch = tuple[torch.Tensor, torch.Tensor]  # inputs, and as targets the inputs one token later; int64 (batch, seq)
RESIDENT_SHARE = 10  # tokens stay on a GPU if they take at most one part in this many of its memory
RESIDENT_PIECE = 1 << 24  # tokens that are copied to the GPU at once


class Batches:
    """Training windows without replacement, in an order that depends on (seed, epoch) alone.

    An epoch takes the windows from a random phase below `context_length` on. So it sees every token from there to the
    last whole window once. A batch may span two epochs. If `device` is a GPU with room for the tokens, it keeps them
    and cuts the batches; otherwise batches are on the CPU.
    """

    def __init__(
        self, tokens: Tokens, context_length: int, batch_size: int, seed: int, device: torch.device | None = None
    ) -> None:
        require_window(tokens, context_length)
        on_device = resident(tokens, device)
        self._tokens = tokens if on_device is None else on_device
        self._context_length, self._batch_size, self._seed = context_length, batch_size, seed
        self._start_epoch(0)

    def next(self) -> Batch:
        """The next batch; at the end of an epoch, the next one begins."""
        starts: list[int] = []
        while len(starts) < self._batch_size:
            if self._position == len(self._starts):
                self._start_epoch(self._epoch + 1)
            more = self._starts[self._position : self._position + self._batch_size - len(starts)]
            starts += more.tolist()
            self._position += len(more)
        return windows(self._tokens, starts, self._context_length)

    def state(self) -> dict[str, int]:
        """Where the next batch starts: the epoch, and how many of its windows are used."""
        return {"epoch": self._epoch, "position": self._position}

    def restore(self, state: dict[str, int]) -> None:
        """Go on from what `state` returned; raises `UserError` if that does not fit these tokens."""
        self._start_epoch(state["epoch"])
        require(
            0 <= state["position"] <= len(self._starts),
            f"Data position {state['position']} lies outside the {len(self._starts)} windows of an epoch: the text or "
            "context_length changed since the checkpoint.",
        )
        self._position = state["position"]

    def _start_epoch(self, epoch: int) -> None:
        random = np.random.default_rng([self._seed, epoch])
        # Every phase leaves at least one whole window and the target after it.
        phase = int(random.integers(min(self._context_length, len(self._tokens) - self._context_length)))
        count = (len(self._tokens) - 1 - phase) // self._context_length
        self._epoch, self._position = epoch, 0
        self._starts: Tokens = phase + self._context_length * random.permutation(count)


def validation_windows(tokens: Tokens, context_length: int, batch_size: int) -> Iterator[Batch]:
    """Batches over all of `tokens` in order: every token but the first is a target once.

    Tokens after the last whole window come as a batch of one shorter window.
    """
    whole, rest = divmod(len(tokens) - 1, context_length)
    starts = range(0, whole * context_length, context_length)
    for first in range(0, whole, batch_size):
        yield windows(tokens, starts[first : first + batch_size], context_length)
    if rest:
        yield windows(tokens, [whole * context_length], rest)


def windows(tokens: Tokens | torch.Tensor, starts: Sequence[int], length: int) -> Batch:
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
