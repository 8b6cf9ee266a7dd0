"""Snapshots for the Attention tab: what the heads of a model do on a run's probes, or on another text."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch

from minitx.config import Probe
from minitx.data.token_files import Tokens
from minitx.data.tokenizer import Tokenizer
from minitx.data.words import word_starts
from minitx.heads import snapshots
from minitx.heads.links import tokens_of_links
from minitx.heads.predictions import predict_next
from minitx.heads.record import Precision, Scored, record, score_text, scored_text
from minitx.heads.repeats import Repeats, score_repetition
from minitx.heads.snapshots import PlacedLink, ShownProbe
from minitx.model import Transformer

IMPORTANCE_TOKENS = 24
"""Tokens of each text used to measure importance. Of equally many tokens, more but shorter texts rank the heads better
(docs/notes.md)."""
VALIDATION_TEXT, YOUR_TEXT = "validation text", "your text"
"""What the scores of a snapshot are measured on."""


@dataclass(frozen=True)
class View(Scored):
    """The scores of the heads on a text, and their patterns on probes."""

    probes: list[ShownProbe]
    repeats: Repeats
    scored_on: str = VALIDATION_TEXT

    def snapshot(self, step: int, run: str = "") -> bytes:
        """The view as the bytes of a snapshot; `run` is the `snapshots.run_id`."""
        names = self.role_names()
        return snapshots.encode(step, self.probes, self.scores, self.chance, names, run, self.scored_on)


def view_probes(
    model: Transformer,
    tokenizer: Tokenizer,
    probes: Sequence[Probe],
    tokens: Tokens,
    precision: Precision = nullcontext,
    repeated_loss: bool = False,
) -> View:
    """The patterns on `probes`, each cut at the context length, and the scores on the start of `tokens`.

    `precision` makes the context that scores are computed in, such as that of training; patterns are in float32.
    `repeated_loss` asks for the losses in `View.repeats`, too.
    """
    with precision():
        repeats = score_repetition(model, tokens, only_induction=not repeated_loss)
    scored = score_text(model, scored_text(model, tokens), importance_tokens=IMPORTANCE_TOKENS, precision=precision)
    scored = scored.judged_on(repeats.induction, repeats.chance)
    return View(scored.scores, scored.chance, [show_probe(model, tokenizer, probe) for probe in probes], repeats)


def show_probe(model: Transformer, tokenizer: Tokenizer, probe: Probe) -> ShownProbe:
    """The patterns on a probe, cut at the context length, with the links that its tokens hold."""
    tokens = tokenizer.encode(probe.text)
    pieces = [tokenizer.token_bytes(token) for token in tokens[: model.config.context_length]]
    return probe_of(model, tokenizer, probe.text, tokens, tokens_of_links(probe, pieces))


def probe_of(
    model: Transformer, tokenizer: Tokenizer, text: str, tokens: Sequence[int], links: Sequence[PlacedLink] = ()
) -> ShownProbe:
    """What every head and the whole model do on the first `context_length` of `tokens`, which are those of `text`."""
    kept = list(tokens)[: model.config.context_length]
    inputs = torch.tensor([kept])
    recorded, residual = record(model, inputs)
    scored = score_text(model, inputs, recorded)
    return ShownProbe(
        text,
        tokenizer.token_labels(kept),
        recorded[:, 0],
        links,
        words=word_starts([tokenizer.token_bytes(token) for token in kept]),
        dropped=len(tokens) - len(kept),
        predictions=predict_next(model, tokenizer, kept, residual[0]),
        scores=scored.scores,
        chance=scored.chance,
        roles=scored.role_names(),
    )


def text_snapshot(
    model: Transformer, tokenizer: Tokenizer, texts: Sequence[tuple[str, Sequence[int]]], step: int
) -> bytes:
    """A snapshot with a probe for each text and its tokens; a single text comes with its scores and importance."""
    probes = [probe_of(model, tokenizer, text, tokens) for text, tokens in texts]
    if len(texts) > 1:
        return snapshots.encode(step, probes)
    tokens = torch.tensor([list(texts[0][1])[: model.config.context_length]])  # (1, seq)
    repeats = score_repetition(model, tokens[0].numpy(), only_induction=True)
    scored = score_text(model, tokens, probes[0].patterns[:, None], importance_tokens=tokens.size(1))
    scored = scored.judged_on(repeats.induction, repeats.chance)
    return View(scored.scores, scored.chance, probes, repeats, YOUR_TEXT).snapshot(step)
