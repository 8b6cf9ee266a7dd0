"""Loss and induction scores on random tokens that come twice."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minitx.attention import HeadAccess, Recorder
from minitx.heads.importance import token_losses
from minitx.heads.record import all_heads
from minitx.heads.scores import chance, score_heads, spread_over_texts
from minitx.model import Transformer, evaluating


def repeated_text(tokens: NDArray[np.unsignedinteger], most: int, n_sequences: int = 8) -> Tensor:
    """(batch, seq): different random tokens of the kinds in `tokens`, then the same again; no order but the repetition
    is in them. The kind of the first token, end of document in a split, is left out. `most` tokens, or fewer where
    there are not so many kinds. The same at every call."""
    random, kinds = np.random.default_rng(0), np.unique(tokens[tokens != tokens[0]]).astype(np.int64)
    half = np.stack([random.permutation(kinds)[: most // 2] for _ in range(n_sequences)])
    return torch.from_numpy(np.concatenate([half, half], axis=1))


class Repeats(NamedTuple):
    """What a model does on `repeated_text`: the sign of induction heads (Olsson et al. 2022), in any text."""

    first_loss: float
    """Nats per token on the first half; NaN where the context is too short."""
    second_loss: float
    """On the second half, which can be looked up in the first."""
    induction: NDArray[np.float64]
    """(layer, head): the score of that name; every token of the second half has one place to look at."""
    spread: NDArray[np.float64]
    """Its standard deviation over the texts."""
    chance: float


def score_repetition(model: Transformer, tokens: NDArray[np.unsignedinteger]) -> Repeats:
    """The loss and the induction scores on random tokens, of the kinds in `tokens`, that come twice."""
    text = repeated_text(tokens, min(model.config.context_length, 128))
    half = text.size(1) // 2
    if half < 2:
        nothing = np.full((model.config.n_layer, model.config.n_head), np.nan)
        return Repeats(float("nan"), float("nan"), nothing, nothing, float("nan"))
    recorder = Recorder()
    with evaluating(model), torch.inference_mode():
        on_device = text.to(model.embedding.weight.device)
        residual = model.residual(on_device, heads=HeadAccess(recorder=recorder))  # (batch, seq, d_model)
        losses = token_losses(model, residual[:, :-1], on_device[:, 1:])  # (batch, seq - 1)
    seen = all_heads(recorder, model.config, *text.shape)
    return Repeats(
        float(losses[:, : half - 1].mean()),
        float(losses[:, half:].mean()),
        score_heads(seen, text.numpy())["induction"],
        spread_over_texts(seen, text.numpy())["induction"],
        chance(text.numpy(), "induction"),
    )
