"""What is said of attention heads, held against measured models: every claim with its source and its evidence."""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

import numpy as np

from minitx.config import ModelConfig
from minitx.data.tales.tale import KINDS
from minitx.heads.kinds import MIN_EXCESS
from minitx.heads.scores import Floats
from minitx.studies.claims_runs import (
    DECIDED,
    KINDS_OF_ATTENTION,
    PROJECTION,
    Figures,
    HeadFigures,
    Results,
    shape_name,
)
from minitx.studies.claims_verdicts import UNDECIDED, Claim, Evidence, Table, cell

CLOSE = 0.01
"""Share of the whole model's loss or accuracy that counts as close."""
Quantity = Callable[[Figures], float]
ABOVE: Quantity = attrgetter("above")
ACCURACY: Quantity = attrgetter("mean_accuracy")
HALF_ERROR: Quantity = attrgetter("half_error")


@dataclass(frozen=True)
class Study:
    """The figures of all runs."""

    results: Results
    seeds: Sequence[int]
    model: ModelConfig
    """Of the usual model."""

    def has(self, *variants: str) -> bool:
        """Whether these models were trained."""
        return all((variant, self.seeds[0]) in self.results for variant in variants)

    @property
    def usual(self) -> str:
        """The name of the usual model."""
        return shape_name(self.model.n_layer, self.model.n_head)

    @property
    def depths(self) -> dict[int, tuple[str, str]]:
        """Layers → the models with one head and with several."""
        pairs = {layers: (shape_name(layers, 1), shape_name(layers, self.model.n_head)) for layers in range(1, 100)}
        return {layers: pair for layers, pair in pairs.items() if self.has(*pair)}

    @property
    def counts(self) -> dict[int, str]:
        """Heads → the model, among those as deep as the usual one."""
        names = {heads: shape_name(self.model.n_layer, heads) for heads in range(1, self.model.d_model)}
        return {heads: name for heads, name in names.items() if self.has(name)}

    def figures(self, variant: str) -> list[Figures]:
        """Those of each seed."""
        return [self.results[variant, seed] for seed in self.seeds]

    def values(self, variant: str, quantity: Quantity) -> Floats:
        """(seed)."""
        return np.array([quantity(figures) for figures in self.figures(variant)], dtype=np.float64)

    def gain(self, variant: str, quantity: Quantity, over: str) -> Floats:
        """(seed): how much more `variant` has than `over`."""
        return self.values(variant, quantity) - self.values(over, quantity)

    def heads(self, variant: str, figure: Callable[[HeadFigures], float]) -> tuple[Floats, Floats]:
        """A figure of the heads after training and at step 0, each (seed)."""
        pairs = [(run.heads, run.heads_at_start) for run in self.figures(variant)]
        trained, start = zip(*[map(figure, filter(None, pair)) for pair in pairs], strict=True)
        return np.array(trained), np.array(start)


def tried_claims(study: Study) -> Iterator[Claim]:
    """All claims that the trained models can decide."""
    for layers, (one, several) in study.depths.items():
        yield several_heads(study, layers, one, several)
    if len(study.counts) > 2:
        yield up_to_a_point(study)
    if study.has(study.usual):
        yield from (specialised(study), at_once(study), redundant(study), from_training(study))
        yield from (other_attention(study, kind) for kind in KINDS_OF_ATTENTION if study.has(kind))
        yield projected(study)
        if study.has(PROJECTION):
            yield never_projected(study)


def several_heads(study: Study, layers: int, one: str, several: str) -> Claim:
    """The first claim, at one depth."""
    gains = {kind: study.gain(several, of_kind(kind), one).mean() for kind in DECIDED}
    most = sorted(gains, key=lambda kind: -np.nan_to_num(gains[kind]))[:3]
    return Claim(
        f"a, {layers} layer{'s' * (layers > 1)}",
        "Several heads beat one head at equal parameters: one averages, several attend to different places.",
        "Vaswani et al. 2017, section 3.2.2 and table 3 (A)",
        [
            Evidence("nats saved", -study.gain(several, ABOVE, one)),
            Evidence("accuracy gained", study.gain(several, ACCURACY, one)),
        ],
        "most: " + ", ".join(f"{kind} {gains[kind]:+.2f}" for kind in most),
        [accuracy_table(study, [one, several])],
    )


def up_to_a_point(study: Study) -> Claim:
    """The best count lies between: for each seed, the other seeds choose it."""
    losses = np.array([study.values(name, ABOVE) for name in study.counts.values()])  # (count, seed)
    best = []
    for seed, own in enumerate(losses.T):
        others = np.delete(losses, seed, axis=1) if len(study.seeds) > 1 else losses
        best.append(own[1 + others.mean(axis=1)[1:-1].argmin()])
    counts = [*study.counts]
    return Claim(
        "b",
        "More heads help up to a point; too many are too narrow.",
        "Vaswani et al. 2017, section 6.2 and table 3 (A)",
        [
            Evidence("nats that 1 head loses to the best count between", losses[0] - best),
            Evidence(f"nats that {counts[-1]} heads lose to it", losses[-1] - best),
        ],
        f"best: {counts[losses.mean(axis=1).argmin()]} heads",
        [accuracy_table(study, [*study.counts.values()])],
    )


def specialised(study: Study) -> Claim:
    """Heads have names, and the top head of a kind has much of its drop."""
    names = [run.heads.names for run in study.figures(study.usual) if run.heads]
    heads = [
        [f"{layer}.{head}", *(", ".join(run[layer][head]) or "–" for run in names)]
        for layer, head in np.ndindex(study.model.n_layer, study.model.n_head)
    ]
    figures = {
        "heads with a name (share)": named,
        "kinds that such a head is named after": lambda heads: float(
            np.mean([*filter(None, name_counts(heads))] or [0])
        ),
        "top head's share of drops": top_share,
        "its share if all were alike": lambda heads: 1 / len(name_counts(heads)),
        "attention above control for both readings (d)": both_readings,
    }
    rows = [
        [several, name, *map(cell, study.heads(several, figure))]
        for _, several in study.depths.values()
        for name, figure in figures.items()
    ]
    return Claim(
        "c",
        "Heads specialise: one head does one kind of work that can be named.",
        "Voita et al. 2019, section 5; Clark et al. 2019, section 4",
        [
            Evidence("share of heads with a name, less at step 0", np.subtract(*study.heads(study.usual, named))),
            Evidence("top head's share of drops, less at step 0", np.subtract(*study.heads(study.usual, top_share))),
        ],
        tables=[
            Table("heads", ["model", "", "trained", "at step 0"], rows),
            Table("names of heads (layer.head)", ["", *(f"seed {seed}" for seed in study.seeds)], heads),
        ],
    )


def at_once(study: Study) -> Claim:
    """One layer serves both readings."""
    trained, start = study.heads(study.usual, both_readings)
    what = "attention above control of the less clear of two heads of a layer, each to its own reading"
    return Claim(
        "d",
        "Heads attend to different places at once: one to each reading of an ambiguous word.",
        "Vaswani et al. 2017, section 3.2.2",
        [Evidence(what, trained, MIN_EXCESS)],
        f"at step 0: {cell(start)}",
    )


def redundant(study: Study) -> Claim:
    """Greedy pruning, chosen on half of the tales and measured on the other, can spare a head."""
    curves = [run.pruning for run in study.figures(study.usual) if run.pruning]
    greedy = -np.array([curve.losses["greedy"] for curve in curves])[:, None]  # (seed, 1, removed)
    random = -np.array([curve.random_losses for curve in curves])  # (seed, order, removed)
    whole = greedy[:, :, :1]
    limits = {
        "1 %": (1 - CLOSE) * whole,
        "1 standard error": whole - study.values(study.usual, HALF_ERROR)[:, None, None],
    }
    can_go = {label: (removable(greedy, limit), removable(random, limit)) for label, limit in limits.items()}
    notes = [f"within {label} {cell(a)}, in random order {cell(b)}" for label, (a, b) in can_go.items()]
    rows = [[i, cell(greedy[:, 0, i]), cell(random[:, :, i].mean(axis=1))] for i in range(greedy.shape[2])]
    return Claim(
        "e",
        "Some heads are redundant: without them a trained model does as well.",
        "Michel et al. 2019, sections 3 and 4; Voita et al. 2019, section 6",
        [Evidence("heads that can go within 1 % of accuracy", can_go["1 %"][0], 0.5)],
        f"of {len(rows) - 1} heads: {'; '.join(notes)}",
        [Table("mean accuracy on half of the tales", ["removed", "greedy", "random"], rows)],
    )


def from_training(study: Study) -> Claim:
    """No names at step 0; whether the same head has the same names in every run is a note."""
    trained, start = study.heads(study.usual, named)
    names = [run.heads.names for run in study.figures(study.usual) if run.heads]
    pairs = [overlaps(*pair) for pair in itertools.combinations(names, 2)] or [(math.nan, math.nan)]
    same, any_head = np.transpose(pairs)
    return Claim(
        "f",
        "Roles come from training, not from the weights that it starts with.",
        "Olsson et al. 2022, argument 1",
        [Evidence("share of heads with a name, less at step 0", trained - start)],
        f"at step 0: {cell(start)}. Names of two seeds overlap by {cell(same)} for the same head, by {cell(any_head)} "
        "for any two heads of a layer. That a head's number decides its role: "
        f"{Evidence('', same - any_head).verdict}.",
    )


def other_attention(study: Study, kind: str) -> Claim:
    """Shared or compressed keys and values against multi-head attention."""
    sentence, source, limit = {
        "grouped_query": ("is close to multi-head attention", "Ainslie et al. 2023, section 3", -CLOSE),
        "multi_query": ("is only a little worse than multi-head attention", "Shazeer 2019, section 4", -CLOSE),
        "latent": ("is better than multi-head attention", "DeepSeek-V2 2024, section 2.1", 0.0),
    }[kind]
    variants = [study.usual, *filter(study.has, KINDS_OF_ATTENTION)]
    usual, own = study.figures(study.usual)[0], study.figures(kind)[0]
    loss, share = (study.values(kind, of) / study.values(study.usual, of) - 1 for of in (attrgetter("loss"), ACCURACY))
    return Claim(
        f"g, {kind.replace('_', ' ')}",
        f"{kind.replace('_', '-').capitalize()} attention {sentence}, with a smaller cache.",
        source,
        [Evidence("share of the loss saved", -loss, limit), Evidence("share of accuracy gained", share, limit)],
        f"nats above entropy {cell(study.values(kind, ABOVE))} against {cell(study.values(study.usual, ABOVE))}; "
        f"cache {own.cache_bytes:,} bytes per token against {usual.cache_bytes:,}",
        [accuracy_table(study, variants)] if kind == variants[1] else (),
    )


def projected(study: Study) -> Claim:
    """The identity in place of the output projections of a trained model."""
    whole = np.array([(run.above, run.mean_accuracy) for run in study.figures(study.usual)])  # (seed, 2)
    found = [run.unprojected for run in study.figures(study.usual) if run.unprojected]
    without = {name: np.array([run[name] for run in found]) for name in sorted(found[0])}
    rows = [[name, *map(cell, values.T)] for name, values in {"none": whole, **without}.items()]
    return Claim(
        "h",
        "The output projection matters: to a trained model the heads' outputs side by side are not enough.",
        "Vaswani et al. 2017, section 3.2.2 (W^O)",
        [
            Evidence("nats lost with the identity in its place", (without["all"] - whole)[:, 0]),
            Evidence("accuracy lost", (whole - without["all"])[:, 1]),
        ],
        tables=[Table("the identity in place of W^O", ["in layers", "nats above entropy", "mean accuracy"], rows)],
    )


def never_projected(study: Study) -> Claim:
    """Trained with the identity from the start."""
    return Claim(
        "h, never trained",
        "A model that is trained with the identity in its place learns less.",
        "Vaswani et al. 2017, section 3.2.2 (W^O)",
        [
            Evidence("nats lost", study.gain(PROJECTION, ABOVE, study.usual)),
            Evidence("accuracy lost", -study.gain(PROJECTION, ACCURACY, study.usual)),
        ],
        tables=[accuracy_table(study, [PROJECTION, study.usual])],
    )


def accuracy_table(study: Study, variants: Sequence[str]) -> Table:
    """Losses and accuracies of models; of two, also the gain of the second, with a star where it is clear."""
    first, is_pair = [study.figures(variant)[0] for variant in variants], len(variants) == 2
    rows = [["parameters", *(f"{figures.parameters:,}" for figures in first), *[""] * is_pair]]
    rows += [["cache bytes per token", *(f"{figures.cache_bytes:,}" for figures in first), *[""] * is_pair]]
    quantities = {"nats above entropy": ABOVE, "mean accuracy": ACCURACY, **{kind: of_kind(kind) for kind in KINDS}}
    for name, quantity in quantities.items():
        rows.append([name, *(cell(study.values(variant, quantity)) for variant in variants)])
        if is_pair:
            gain = study.gain(variants[1], quantity, variants[0])
            rows[-1].append(cell(gain) + " *" * (Evidence("", gain).verdict != UNDECIDED))
    return Table("loss, and accuracy by kind", ["", *variants, *["gain"] * is_pair], rows)


def of_kind(kind: str) -> Quantity:
    """The accuracy of a kind."""
    return lambda figures: figures.accuracy[kind]


def name_counts(heads: HeadFigures) -> list[int]:
    """The number of names of each head."""
    return [len(names) for row in heads.names for names in row]


def named(heads: HeadFigures) -> float:
    """The share of heads with a name."""
    return float(np.mean(np.array(name_counts(heads)) > 0))


def top_share(heads: HeadFigures) -> float:
    """Of all accuracy that heads are good for, kind by kind, the share of each kind's top head."""
    drops = np.array([np.ravel(heads.drop[kind]) for kind in DECIDED], dtype=np.float64)  # (kind, head)
    drops = np.nan_to_num(drops).clip(min=0)
    return float(drops.max(axis=1).sum() / max(drops.sum(), 1e-9))


def both_readings(heads: HeadFigures) -> float:
    """How well one layer serves both readings: the attention above control of the less clear of its two best heads.

    A head counts for the reading that it attends to more, by what it attends to more or above control, the smaller.
    """
    watcher, watched = np.nan_to_num(np.array(heads.readings, dtype=np.float64))  # each (layer, head)
    to_watcher = np.minimum(watcher, watcher - watched).max(axis=1)
    to_watched = np.minimum(watched, watched - watcher).max(axis=1)
    return float(np.minimum(to_watcher, to_watched).max())


def removable(curves: Floats, least: Floats) -> Floats:
    """(seed): the most removals that leave `least` accuracy, mean over orders; curves: (seed, order, removed)."""
    last = (curves >= least)[:, :, ::-1].argmax(axis=2)  # counted from the end
    return (curves.shape[2] - 1 - last).mean(axis=1)


def overlaps(first: list[list[list[str]]], second: list[list[list[str]]]) -> tuple[float, float]:
    """Jaccard overlap of names [layer][head]: mean over the same heads, and over any two heads of a layer.

    The latter is what a random permutation of the heads within layers gives. Heads without names overlap with none.
    """
    same, any_head = [], []
    for row, other in zip(first, second, strict=True):
        table = [[len({*a} & {*b}) / max(1, len({*a} | {*b})) for b in other] for a in row]
        same.append(np.mean(np.diag(table)))
        any_head.append(np.mean(table))
    return float(np.mean(same)), float(np.mean(any_head))
