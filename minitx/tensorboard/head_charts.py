"""Charts of heads: their tags and values, and how the Custom Scalars tab arranges them. Pure numpy.

TensorBoard groups charts by what stands before the slash of a tag, sorted with capitals first.
"""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minitx.data.tales.tale import KINDS
from minitx.heads.scores import IMPORTANCE, SCORES
from minitx.system.text import visible

Floats = NDArray[np.floating[Any]]

KIND = "tales_{}"
"""Name of the score of heads for a kind of relationship."""
DESCRIPTIONS = {
    **{KIND.format(kind): f"attention to the word that decides: {meaning}" for kind, meaning in KINDS.items()},
    **{name: score.description for name, score in SCORES.items()},
    "importance": IMPORTANCE,
    "induction_on_repeats": f"{SCORES['induction'].description}, on random tokens that come twice",
}
"""Score of heads → what it means."""
TITLE = 32
"""Characters of a probe's text in a tag."""


class ProbeLink(NamedTuple):
    """The attention of every head along a link of a probe."""

    probe: str
    """Its title, of `probe_titles`."""
    name: str
    attention: Floats
    """(layer, head)"""
    even: float
    """The attention of a head that spreads it evenly."""


class Point(NamedTuple):
    """A value for a chart; NaN where there is none."""

    tag: str
    value: float
    description: str


def summary_points(
    scores: Mapping[str, Floats], chance: Mapping[str, float], links: Sequence[ProbeLink]
) -> Iterator[Point]:
    """The highest and the mean of each score (layer, head) in each layer, and the highest head of each link.

    Beside them stands chance, the score of a head that spreads its attention evenly.
    """
    for name, values in scores.items():
        group, meaning = f"heads: {spoken(name)}", DESCRIPTIONS.get(name, "")
        for layer, row in enumerate(values):
            known = row[~np.isnan(row)]
            if known.size:
                yield Point(f"{group}/layer {layer}, highest", float(known.max()), f"highest head: {meaning}")
                yield Point(f"{group}/layer {layer}, mean", float(known.mean()), f"mean over heads: {meaning}")
        yield Point(f"{group}/chance", chance.get(name, np.nan), f"attention spread evenly: {meaning}")
    for link in links:
        group, known = f"links in {link.probe}", link.attention[~np.isnan(link.attention)]
        along = "attention from the later word to the earlier one"
        if known.size:
            yield Point(f"{group}/{link.name}, highest head", float(known.max()), f"{along}, of the highest head")
        yield Point(f"{group}/{link.name}, chance", link.even, f"{along}, spread evenly")


def head_points(scores: Mapping[str, Floats], links: Sequence[ProbeLink]) -> Iterator[Point]:
    """Each score and link of each head."""
    for name, values in every_figure(scores, links).items():
        for (layer, head), value in np.ndenumerate(values):
            yield Point(f"layer {layer} head {head}/{spoken(name)}", float(value), DESCRIPTIONS.get(name, ""))


def every_figure(scores: Mapping[str, Floats], links: Sequence[ProbeLink]) -> dict[str, Floats]:
    """Scores and links (layer, head) by name."""
    return {**scores, **{f"{link.probe} {link.name}": link.attention for link in links}}


def layout(losses: Sequence[str], scores: Mapping[str, Floats], links: Sequence[ProbeLink], each_head: bool) -> Any:
    """Charts of the Custom Scalars tab: `losses`, layers for each score, links of each probe, perhaps heads.

    Tags are patterns, which fit any run.
    """
    from tensorboard.plugins.custom_scalar.layout_pb2 import Category, Chart, Layout, MultilineChartContent

    def chart(title: str, *tags: str) -> Chart:
        return Chart(title=title, multiline=MultilineChartContent(tag=[f"^{tag}$" for tag in tags]))

    def score_chart(name: str) -> Chart:
        group = re.escape(f"heads: {spoken(name)}")
        return chart(spoken(name), rf"{group}/layer \d+, highest", f"{group}/chance")

    probes = dict.fromkeys(link.probe for link in links)
    categories = [
        Category(title="Loss", chart=[chart("training and validation", *losses)]),
        Category(title="Heads: highest of each layer", chart=[score_chart(name) for name in scores]),
    ]
    if probes:
        charts = [chart(probe, rf"{re.escape(f'links in {probe}')}/.*, highest head") for probe in probes]
        categories.append(Category(title="Links: highest head", chart=charts))
    for name, values in every_figure(scores, links).items() if each_head else ():
        tag = re.escape(spoken(name))
        charts = [
            chart(f"layer {layer}: {spoken(name)}", rf"layer {layer} head \d+/{tag}", f"heads: {tag}/chance")
            for layer in range(len(values))
        ]
        categories.append(Category(title=f"Each head: {spoken(name)}", chart=charts))
    return Layout(category=categories)


def spoken(name: str) -> str:
    """The name of a score as words."""
    return name.replace("_", " ")


def probe_titles(texts: Sequence[str]) -> list[str]:
    """The first words of each text, in quotes; of texts that begin alike, the first words from where they part.

    No title has a slash, for TensorBoard would end the group of charts there.
    """
    plain = [visible(" ".join(text.split())).replace("/", "\u2215") for text in texts]
    titles = [first_words(text) for text in plain]
    for i in [i for i, title in enumerate(titles) if titles.count(title) > 1]:
        alike = [other for other in plain if other != plain[i] and first_words(other) == first_words(plain[i])]
        shared = max((same_start(plain[i], other) for other in alike), default=0)
        start = plain[i].rfind(" ", 0, shared) + 1
        titles[i] = f"… {first_words(plain[i][start:])}" if start else titles[i]
    numbered = [
        f"{title} #{titles[:i].count(title) + 1}" if title in titles[:i] else title for i, title in enumerate(titles)
    ]
    return [f"“{title}”" for title in numbered]


def same_start(text: str, other: str) -> int:
    """How many characters two texts begin with alike."""
    pairs = enumerate(zip(text, other, strict=False))
    return next((at for at, (one, two) in pairs if one != two), min(len(text), len(other)))


def first_words(text: str) -> str:
    """`text` cut to `TITLE` characters, between words where it has any."""
    whole_words = textwrap.shorten(text, TITLE, placeholder="…")
    return whole_words if whole_words != "…" else f"{text[: TITLE - 1]}…"
