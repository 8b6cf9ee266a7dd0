"""Tokens → batches: training windows in a random order that can be resumed exactly, validation windows in order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from minitx.data.token_files import Tokens
from minitx.system.errors import require

if TYPE_CHECKING:
    import torch


RESIDENT_SHARE = 10
"""Tokens stay on a GPU if they take at most one part in this many of its memory, and half of its free memory."""
RESIDENT_PIECE = 1 << 24
"""Tokens that are copied to the GPU at once."""


class Batches:
    """Training windows without replacement, in an order that depends on (seed, epoch) alone.

    An epoch starts at a random phase below `context_length` and takes the windows from there in random order. So it
    sees every token from the phase to the last whole window once. A batch may span two epochs.

    device: where the batches are used. A GPU with room for the tokens keeps them and cuts the batches itself;
    otherwise the batches are on the CPU.
    """

    def __init__(
        self, tokens: Tokens, context_length: int, batch_size: int, seed: int, device: torch.device | None = None
    ) -> None:
        require_window(tokens, context_length)
        self._resident = resident(tokens, device)
        self._tokens, self._context_length, self._batch_size, self._seed = tokens, context_length, batch_size, seed
        self._start_epoch(0)

    def next(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets, int64, both (batch, seq); the targets are the inputs one token later."""
        starts: list[int] = []
        while len(starts) < self._batch_size:
            if self._position == len(self._starts):
                self._start_epoch(self._epoch + 1)
            more = self._starts[self._position : self._position + self._batch_size - len(starts)]
            starts += more.tolist()
            self._position += len(more)
        if self._resident is not None:
            return resident_windows(self._resident, starts, self._context_length)
        return _windows(self._tokens, starts, self._context_length)

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


def validation_windows(
    tokens: Tokens, context_length: int, batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Inputs and targets over all of `tokens` in order, both (batch, seq): every token but the first is a target once.

    Tokens after the last whole window come as a batch of one shorter window.
    """
    whole, rest = divmod(len(tokens) - 1, context_length)
    for first in range(0, whole, batch_size):
        windows = range(first, min(first + batch_size, whole))
        yield _windows(tokens, [window * context_length for window in windows], context_length)
    if rest:
        yield _windows(tokens, [whole * context_length], rest)


def _windows(tokens: Tokens, starts: list[int], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    import torch

    rows = np.stack([tokens[start : start + length + 1] for start in starts]).astype(np.int64)  # (batch, seq + 1)
    both = torch.from_numpy(rows)
    return both[:, :-1].contiguous(), both[:, 1:].contiguous()


def resident(tokens: Tokens, device: torch.device | None) -> torch.Tensor | None:
    """`tokens` as int32 on `device`; None if that is no CUDA device, or lacks the room (`RESIDENT_SHARE`)."""
    if device is None or device.type != "cuda":
        return None
    import torch

    free, memory = torch.cuda.mem_get_info(device)
    if 4 * len(tokens) > min(free / 2, memory / RESIDENT_SHARE):
        return None
    copy = torch.empty(len(tokens), dtype=torch.int32, device=device)
    for start in range(0, len(tokens), RESIDENT_PIECE):
        piece = tokens[start : start + RESIDENT_PIECE].astype(np.int32)
        copy[start : start + len(piece)] = torch.from_numpy(piece)
    return copy


def resident_windows(tokens: torch.Tensor, starts: list[int], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """As `_windows`, cut by the device of `tokens`, without waiting for it."""
    import torch

    first = torch.tensor(starts, pin_memory=tokens.is_cuda).to(tokens.device, non_blocking=True)
    rows = tokens[first[:, None] + torch.arange(length + 1, device=tokens.device)].long()  # (batch, seq + 1)
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def require_window(tokens: Tokens, context_length: int) -> None:
    """Raise `UserError` unless `tokens` hold a window and the token after it."""
    require(
        len(tokens) > context_length,
        f"The training text has {len(tokens)} tokens, but model.context_length {context_length} needs at least "
        f"{context_length + 1}: use more text or a shorter context.",
    )
