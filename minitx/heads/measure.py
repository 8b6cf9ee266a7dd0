"""Every head of a model measured: what it attends to, how much it matters, the role it fits, the links it follows.

`measure_heads` and `measure_probes` return arrays (layer, head). `to_json` gives them as plain data, `table` prints
and `figures` draws them.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitx.config.probes import Probe
from minitx.data.token_files import Tokens
from minitx.data.tokenizer import Tokenizer
from minitx.heads.circuits import Composition, composition, copying, strongest
from minitx.heads.importance import Ablation, Advance, Survey, ablate, survey, without_output_projection
from minitx.heads.likeness import rank_correlation, semantic_correlation, similarity
from minitx.heads.links import LinkAttention, competing_links, measure_links, preferred
from minitx.heads.record import Precision, patterns, score_text, scored_text
from minitx.heads.repeats import Repeats, score_repetition
from minitx.heads.roles import UNCLASSIFIED, Roles
from minitx.heads.scores import Floats, spread_over_texts
from minitx.heads.view import show_probe
from minitx.model import Transformer
from minitx.system.files import without_nan


@dataclass(frozen=True)
class HeadMeasurements:
    """The heads of a model on a text. Arrays are (layer, head), and NaN where a figure is not known."""

    scored_tokens: int
    """Tokens that patterns are scored on."""
    tokens: int
    """Tokens that losses are computed on."""
    scores: dict[str, Floats]
    """Those of `SCORES`, "induction_on_repeats" and "semantic"."""
    spreads: dict[str, Floats]
    """Standard deviation of each score over texts."""
    chance: dict[str, float]
    """The score of a head that spreads its attention evenly."""
    roles: Roles
    repeats: Repeats
    similarity: Floats
    """(layer * n_head + head, the same): how alike any two heads attend."""
    survey: Survey
    """Loss, gradient and contribution."""
    ablation: Ablation | None
    unprojected: Floats | None
    """(layer): change of the loss with the identity for the layer's output projection."""
    copying: Floats
    composition: dict[str, Floats]
    """"Q", "K" and "V" → (head that reads, head that wrote), both layer * n_head + head; see `composition`."""

    @property
    def unclassified(self) -> float:
        """Share of the heads that fit no role."""
        return float(np.mean(self.roles.names == UNCLASSIFIED))

    @property
    def pairs(self) -> Floats:
        """(pair): the similarity of every two different heads."""
        return self.similarity[np.tril_indices(len(self.similarity), -1)]

    def most_like(self, layer: int, head: int) -> tuple[int, int, float] | None:
        """Layer, head and similarity of the head that attends most like this one; None for a single head."""
        n_head = self.roles.names.shape[1]
        others = self.similarity[layer * n_head + head].copy()
        others[layer * n_head + head] = -1
        twin = int(others.argmax())
        return None if len(others) == 1 else (twin // n_head, twin % n_head, float(others[twin]))

    def reads(self, layer: int, head: int) -> Composition | None:
        """What the head reads most of what an earlier head wrote; None in the first layer."""
        return next(iter(strongest(self.composition, layer * self.roles.names.shape[1] + head)), None)

    def rank_correlations(self) -> list[float]:
        """How the gradient ranks the heads like ablation to zero, and to the mean; empty without ablation."""
        changes = (self.ablation.zero, self.ablation.mean) if self.ablation else ()
        return [rank_correlation(self.survey.gradient, change) for change in changes]

    def to_json(self) -> dict[str, Any]:
        """Plain data with an entry per head, as `minitx heads --json` prints it; None in place of NaN."""
        content: dict[str, Any] = {
            "scored_tokens": self.scored_tokens,
            "tokens": self.tokens,
            "loss": self.survey.loss,
            "chance": self.chance,
            "heads": [self._head(layer, head) for layer, head in np.ndindex(self.roles.names.shape)],
            "unclassified": self.unclassified,
            "residual": self.survey.residual.tolist(),
            "repeated_loss": [self.repeats.first_loss, self.repeats.second_loss],
            "composition": {kind: values.tolist() for kind, values in self.composition.items()},
            "similarity": {"mean": self.pairs.mean(), "spread": self.pairs.std()} if len(self.pairs) else None,
        }
        if self.ablation is not None:
            zero, mean = self.rank_correlations()
            content["rank_correlation"] = {"gradient_zero": zero, "gradient_mean": mean}
        if self.unprojected is not None:
            content["without_output_projection"] = self.unprojected.tolist()
        return dict(without_nan(content))

    def _head(self, layer: int, head: int) -> dict[str, Any]:
        at, twin = (layer, head), self.most_like(layer, head)
        entry = {
            "layer": layer,
            "head": head,
            "role": str(self.roles.names[at]),
            "strength": float(self.roles.strengths[at]),
            "scores": {name: float(values[at]) for name, values in self.scores.items()},
            "spreads": {name: float(values[at]) for name, values in self.spreads.items()},
            "contribution": float(self.survey.contribution[at]),
            "gradient": float(self.survey.gradient[at]),
            "copying": float(self.copying[at]),
            "most_like": twin and dict(zip(("layer", "head", "similarity"), twin, strict=True)),
        }
        if self.ablation is not None:
            names = ("zero", "zero_error", "mean", "mean_error")
            entry["ablation"] = {name: float(getattr(self.ablation, name)[at]) for name in names}
        return entry


def measure_heads(
    model: Transformer,
    tokens: Tokens,
    *,
    ablation: bool = True,
    projection: bool = False,
    advance: Advance | None = None,
    precision: Precision = nullcontext,
) -> HeadMeasurements:
    """Measure the heads of `model` on a text of at least 2 tokens.

    Patterns are scored in float32 on the first sequences of the text (`scored_text`). Losses are over all of it, in the
    context that `precision` makes. `advance` gets the number of tokens done: the whole text once, and once more for
    `ablation` and for `projection`, the loss without the output projections.
    """
    text = scored_text(model, tokens)
    recorded, texts, repeats = patterns(model, text), text.numpy(), score_repetition(model, tokens)
    embedding = model.embedding.weight.detach().float().cpu().numpy()
    semantic = semantic_correlation(recorded, texts, embedding)
    by_text = [semantic_correlation(recorded[:, [i]], texts[[i]], embedding) for i in range(len(texts))]
    semantic_spread = np.std(by_text, axis=0, ddof=1) if len(texts) > 1 else np.full_like(semantic, np.nan)
    scored = score_text(model, text, recorded).judged_on(repeats.induction, repeats.chance)
    spreads = spread_over_texts(recorded, texts) | {"induction_on_repeats": repeats.spread, "semantic": semantic_spread}
    with precision():
        surveyed = survey(model, tokens, advance=advance)
        ablated = ablate(model, tokens, surveyed.mean_output, advance=advance) if ablation else None
        unprojected = without_output_projection(model, tokens, advance=advance) if projection else None
    return HeadMeasurements(
        scored_tokens=text.numel(),
        tokens=len(tokens),
        scores=scored.scores | {"semantic": semantic},
        spreads=spreads,
        chance=scored.chance | {"semantic": 0.0},
        roles=scored.roles(),
        repeats=repeats,
        similarity=similarity(recorded[:, :2]),
        survey=surveyed,
        ablation=ablated,
        unprojected=unprojected,
        copying=copying(model),
        composition=composition(model),
    )


@dataclass(frozen=True)
class ProbeMeasurements:
    """The links of one probe."""

    text: str
    tokens: int
    links: list[LinkAttention]

    def choices(self) -> list[tuple[list[str], NDArray[np.int64]]]:
        """For each ambiguous word the names of its candidates, and which one every head prefers (`preferred`)."""
        return [([link.link.name for link in group], preferred(group)) for group in competing_links(self.links)]

    def to_json(self) -> dict[str, Any]:
        """Plain data, as `minitx heads --probes --json` prints it; None in place of NaN."""
        links = [
            {"name": link.link.name, "distance": link.link.distance}
            | {figure: getattr(link, figure).tolist() for figure in ("attention", "chance", "spread")}
            for link in self.links
        ]
        ambiguous = [{"candidates": names, "preferred": choice.tolist()} for names, choice in self.choices()]
        return dict(without_nan({"text": self.text, "tokens": self.tokens, "links": links, "ambiguous": ambiguous}))


def measure_probes(
    model: Transformer, tokenizer: Tokenizer, probes: Sequence[Probe], others: Tokens
) -> list[ProbeMeasurements]:
    """Measure the links of each probe that has any in its tokens; chance is taken from the text `others`."""
    shown = (show_probe(model, tokenizer, probe) for probe in probes)
    return [
        ProbeMeasurements(probe.text, len(probe.tokens), measure_links(model, probe.links, probe.patterns, others))
        for probe in shown
        if probe.links
    ]
