"""Logits → next token: pure functions on (batch, vocab) that treat every row alone.

`sample` applies them in this order: repetition penalty, temperature, top-k, top-p, min-p, one draw. A filter sets the
logits of tokens that it removes to -inf, and always keeps the likeliest token. Of tokens that tie for the last place it
keeps those with the lowest ids. The arithmetic is in float64, so that rounding decides as little as possible.
"""

import math

import torch
from torch import Tensor

from minitx.config import GenerateConfig

NEVER = float("-inf")
FIRST_LOOK = 256
"""Tokens that top-p ranks first: usually enough, and ranking all of them takes several times as long."""


def sample(logits: Tensor, used: Tensor | None, options: GenerateConfig, generator: torch.Generator) -> Tensor:
    """The next token of each row, (batch), drawn with `generator`, on whose device the tensors must be.

    used: (batch, vocab), True for tokens that the text already has; only a repetition penalty needs it.
    Raises FloatingPointError when a row has NaN or its largest logit is infinite.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if used is not None and options.repetition_penalty != 1:
        logits = penalise(logits.double(), used, options.repetition_penalty)
    if options.temperature == 0:
        return largest(logits).indices.squeeze(1)
    return draw(probabilities(logits, options), generator)


def probabilities(logits: Tensor, options: GenerateConfig) -> Tensor:
    """The probability of each token, (batch, vocab), after temperature and filters; each row sums to 1.

    At temperature 0 the likeliest token has probability 1. Raises FloatingPointError as `sample` does.
    """
    logits = logits.double()
    logits = logits - largest(logits).values
    vocab = logits.size(1)
    if options.temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(dim=1), vocab).to(logits.dtype)
    logits = logits / options.temperature  # the largest is 0, so that no temperature makes it overflow
    top_k = min(options.top_k or vocab, vocab)
    if top_k < vocab:
        logits = keep_top_k(logits, top_k)
    if options.top_p is not None and options.top_p < 1:
        logits = keep_top_p(logits, options.top_p, candidates=top_k)
    if options.min_p is not None:
        logits = keep_min_p(logits, options.min_p)
    return logits.softmax(dim=1)


def draw(chances: Tensor, generator: torch.Generator) -> Tensor:
    """A token of each row of `chances`, (batch, vocab): the first whose cumulative sum exceeds a uniform number.

    It needs one random number a row; torch.multinomial draws one for every token and takes 5 to 15 times as long.
    """
    sums = chances.cumsum(dim=1)  # (batch, vocab)
    level = torch.rand(len(sums), 1, generator=generator, dtype=sums.dtype, device=sums.device) * sums[:, -1:]
    # The level is below the last sum, and a token of chance 0 is never first.
    return torch.searchsorted(sums, level, right=True).squeeze(1)


def penalise(logits: Tensor, used: Tensor, penalty: float) -> Tensor:
    """Make used tokens less likely: divide positive logits by `penalty`, multiply negative ones by it.

    Keskar et al. 2019 (CTRL), section 4.1, divide every logit, which would make a negative one likelier.
    """
    return torch.where(used, torch.where(logits > 0, logits / penalty, logits * penalty), logits)


def largest(logits: Tensor) -> torch.return_types.max:
    """The largest logit of each row and its token, the lowest id among equals; both (batch, 1).

    Raises FloatingPointError when that logit is not finite.
    """
    top = logits.max(dim=1, keepdim=True)  # NaN if any is NaN
    if not all(map(math.isfinite, top.values.flatten().tolist())):
        raise FloatingPointError("the logits of a token are not finite")
    return top


def keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """Keep the `top_k` largest logits of each row; `top_k` is at most the size of the vocabulary."""
    ranked = logits.topk(top_k, dim=1).values  # (batch, top_k)
    return keep_largest(logits, ranked, torch.full_like(ranked[:, :1], top_k, dtype=torch.long))


def keep_top_p(logits: Tensor, top_p: float, candidates: int) -> Tensor:
    """Keep the fewest largest logits whose probabilities sum to at least `top_p` (Holtzman et al. 2020, nucleus).

    candidates: how many logits of a row can be above -inf. FIRST_LOOK of them are ranked, and all of them only when
    those do not reach `top_p`.
    """
    total = logits.logsumexp(dim=1, keepdim=True)  # (batch, 1)
    for size in (min(FIRST_LOOK, candidates), candidates):
        ranked = logits.topk(size, dim=1).values  # (batch, size)
        reached = (ranked - total).exp().cumsum(dim=1)  # (batch, size)
        if (reached[:, -1] >= top_p).all():
            break
    count = 1 + (reached[:, :-1] < top_p).sum(dim=1, keepdim=True)  # (batch, 1)
    return keep_largest(logits, ranked, count)


def keep_min_p(logits: Tensor, min_p: float) -> Tensor:
    """Keep tokens whose probability is at least `min_p` times the likeliest one's (Nguyen et al. 2024, min-p)."""
    return logits.masked_fill(logits < logits.amax(dim=1, keepdim=True) + math.log(min_p), NEVER)


def keep_largest(logits: Tensor, ranked: Tensor, count: Tensor) -> Tensor:
    """Keep the `count`, (batch, 1), largest logits of each row; of equals, those with the lowest ids.

    ranked: the largest logits of each row, (batch, count or more), in falling order.
    """
    last = ranked.gather(1, count - 1)  # (batch, 1)
    above, equal = logits > last, logits == last
    room = count - above.sum(dim=1, keepdim=True)
    return logits.masked_fill(~above & ~(equal & (equal.cumsum(dim=1) <= room)), NEVER)
