"""The measurements of every head as tables for a terminal."""

import math
import textwrap
from collections.abc import Iterator, Sequence

import numpy as np

from minitx.data.tales.tale import KINDS
from minitx.heads.kinds import CLEAR, MIN_DROP, MIN_EXCESS
from minitx.heads.kinds_report import HeadKinds, KindMeasurements
from minitx.heads.measure import HeadMeasurements, ProbeMeasurements
from minitx.heads.roles import UNCLASSIFIED
from minitx.heads.scores import SCORES, Floats

COLUMNS = {name: score.column for name, score in SCORES.items()}
COLUMNS |= {"induction_on_repeats": "on repeats", "semantic": "meaning"}
"""The score of each column, and its title."""
MEANINGS = {score.column: score.description for score in SCORES.values()} | {
    "on repeats": "induction, in random tokens that come twice",
    "meaning": "correlation of the attention with the likeness of the tokens' embeddings",
    "role": "the score furthest above chance, if it has half of what chance leaves, and that share",
    "chance": "the scores of a head that attends to all tokens alike",
    "length": "mean length of what the head adds to a token's residual",
    "of residual": "that length as a share of the residual's own",
    "without it": "change of the loss without the head, in nats per token",
    "held at its mean": "the same with the mean of its output in its place",
    "gradient": "how fast the loss changes as the head is turned down",
    "most like": "the head that attends most like it: 1 for a duplicate, 0 if they share no token",
    "copying": "1 if it raises the tokens that it attends to, -1 if it lowers them",
    "reads": "the earlier head that its queries (Q), keys (K) or values (V) read most, and how far above chance",
}
"""What each column says."""
FEW = 32
"""Tokens of which a role may well be chance."""


def as_text(measured: HeadMeasurements, kinds: KindMeasurements | None = None) -> str:
    """What each head attends to, how much it matters, and a summary; for a terminal 130 characters wide.

    `kinds` adds what each head is good for in tales.
    """
    lines = [*_attention(measured), "", *_importance(measured), ""]
    if kinds is not None:
        lines.append("What each head is good for in tales, another measure than its role: see --kinds.\n")
        lines += [*(_place(head.layer, head.head) + f"   {_served(head)}" for head in kinds.heads()), ""]
    return "\n".join([*lines, *_summary(measured)])


def _attention(measured: HeadMeasurements) -> Iterator[str]:
    """The lines of the table of scores."""
    size = f"{measured.scored_tokens:,} tokens" + " (too few to trust a role)" * (measured.scored_tokens < FEW)
    yield f"What each head attends to, on {size}: score ± its standard deviation over texts."
    above = (f"{'induction' if title == 'on repeats' else '':>11}" for title in COLUMNS.values())
    yield f"\n{'':8}{''.join(above)}".rstrip()
    yield "head    " + "".join(f"{title:>11}" for title in COLUMNS.values()) + "  role"
    yield "chance  " + "".join(f"{number(measured.chance[name]):>6}     " for name in COLUMNS)
    for at, role in np.ndenumerate(measured.roles.names):
        cells = (_with_spread(measured.scores[name].item(at), measured.spreads[name].item(at)) for name in COLUMNS)
        strength = "" if role == UNCLASSIFIED else f" {measured.roles.strengths[at]:.2f}"
        yield f"{_place(*at):8}" + "".join(f"{cell:>11}" for cell in cells) + f"  {role.replace('_', ' ')}{strength}"


def _importance(measured: HeadMeasurements) -> Iterator[str]:
    """The lines of the table of importance."""
    survey, ablation = measured.survey, measured.ablation
    yield f"How much each head matters, on {measured.tokens:,} tokens of loss {survey.loss:.4f} nats per token."
    yield "\nhead    length  of residual       without it     held at its mean   gradient    most like  copying  reads"
    for (layer, head), length in np.ndenumerate(survey.contribution):
        at = layer, head
        share = length / max(survey.residual.item(layer), 1e-9)
        changes = f"{'not measured':>20}{'':17}"
        if ablation is not None:
            zero = _change(ablation.zero.item(at), ablation.zero_error.item(at))
            changes = f"  {zero}  {_change(ablation.mean.item(at), ablation.mean_error.item(at))}"
        twin = measured.most_like(layer, head)
        most_like = f"{_place(*twin[:2]):6}{twin[2]:.2f}" if twin else ""
        row = f"{_place(layer, head):6}{length:8.2f}{share:12.0%} {changes}{survey.gradient[at]:11.5f}"
        yield f"{row}    {most_like:10}{number(measured.copying.item(at)):>7}  {_reads(measured, *at)}".rstrip()


def _reads(measured: HeadMeasurements, layer: int, head: int) -> str:
    """The earlier head that this one reads most, such as "K 0.3 +0.21"; empty in the first layer."""
    read = measured.reads(layer, head)
    if read is None:
        return ""
    return f"{read.kind} {_place(*divmod(read.head, measured.roles.names.shape[1]))} {read.value:+.2f}"


def _summary(measured: HeadMeasurements) -> Iterator[str]:
    """The sentences below the tables."""
    yield from (f"{column:18}{meaning}" for column, meaning in MEANINGS.items())
    yield ""
    if measured.scored_tokens >= FEW:
        yield f"{measured.unclassified:.0%} of the heads fit no role (unclassified)."
    first, second = measured.repeats.first_loss, measured.repeats.second_loss
    if not math.isnan(first):
        yield f"Loss on random tokens {first:.2f} nats per token, on the same again {second:.2f}."
    if len(pairs := measured.pairs):
        yield f"Two heads attend alike to {pairs.mean():.2f} ± {pairs.std():.2f}, over all pairs."
    if measured.ablation is not None:
        zero, mean = map(number, measured.rank_correlations())
        yield f"Rank correlation of the gradient with ablation: {zero} (without it), {mean} (held at its mean)."
    if measured.unprojected is not None:
        changes = enumerate(measured.unprojected)
        known = ", ".join(f"{layer}: {change:+.3f}" for layer, change in changes if not math.isnan(change))
        if known:
            yield f"With the identity for the output projection of one layer alone, the loss changes by {known}."


def probes_as_text(probes: Sequence[ProbeMeasurements]) -> str:
    """A table for each probe: a line for each head, a column for each link, candidates for one word side by side."""
    lines = [
        "Attention along each link, and in brackets what the same head gives the same places of other texts.",
        "Back: by how many tokens; prefers: the link of one word that a head clearly follows, of several.",
    ]
    for probe in probes:
        links, choices = probe.links, probe.choices()
        width = max(20, *(len(link.link.name) + 3 for link in links))
        lines += ["", probe.text, ""]
        lines.append("head  " + "".join(f"{link.link.name:<{width}}" for link in links) + "prefers" * bool(choices))
        lines.append("back  " + "".join(f"{link.link.distance:<{width}}" for link in links))
        for at in np.ndindex(links[0].attention.shape):
            figures = ([number(values.item(at)) for values in link[1:]] for link in links)
            cells = (f"{attention} ({chance}±{spread})" for attention, chance, spread in figures)
            preferred = ", ".join(names[choice[at]] for names, choice in choices if choice[at] >= 0)
            lines.append(f"{_place(*at):6}" + "".join(f"{cell:<{width}}" for cell in cells) + (preferred or "–"))
    return "\n".join(line.rstrip() for line in lines)


def kinds_as_text(measured: KindMeasurements) -> str:
    """What the model knows of each kind and which heads it needs for that, and the names of all heads; 130 wide."""
    answers, looks, uses = measured.answers, measured.looks, measured.uses
    lines = [
        "Words that win over their rivals, and attention from the word before to the word that decides.",
        "Chance is a guess; control is the same distance elsewhere; even is a head that looks everywhere alike.",
        "New pairs are words that training never showed together; lost is accuracy, without the head.",
        f"\n{'':58}attends most above control{'':12}matters most",
        "kind           accuracy  chance     new pairs   words    head  attention  control   even    head       lost",
    ]
    for kind in KINDS:
        accuracy, new = (_with_spread(*means[kind]) for means in (answers.accuracy, answers.new))
        line = f"{kind:11}{accuracy:>12}{number(answers.chance[kind]):>8}{new:>14}{answers.counts[kind]:8,}"
        if (at := _greatest(looks.excess[kind].value)) is not None:
            figures = (looks.attention[kind][at], looks.control[kind][at], looks.chance[kind][0])
            line += f"{_place(*at):>8}" + "{:>11}{:>9}{:>7}".format(*map(number, figures))
        if (at := _greatest(uses.mean[kind].value)) is not None:
            line += f"{_place(*at):>8}{_with_spread(*(part[at] for part in uses.mean[kind])):>11}"
        lines.append(line)
    bounds = f"by {MIN_EXCESS} and {MIN_DROP}, and by {CLEAR:.0f} standard errors"
    lines.append(f"\nA head is named if it attends above control and accuracy is lost without it, {bounds}.")
    lines.append("It is named after no kind that the model answers by chance.\n")
    for head in measured.heads():
        text = _served(head)
        for title, kinds in (
            ("attends without use", head.attends_only),
            ("used without attending", head.matters_only),
        ):
            text += f"; {title}: {', '.join(kinds)}" if kinds else ""
        lines += textwrap.wrap(f"{_place(head.layer, head.head):6}{text}", 122, subsequent_indent=" " * 6)
    lines.append(f"\n{measured.unclassified:.0%} of the heads are named after no kind.")
    lines.append(
        "A name is what a head is good for in tales. Its role on any text is another measure: see minitx heads."
    )
    above = " ± ".join(f"{part:.4f}" for part in answers.above if not math.isnan(part))
    lines.append(
        f"Loss {answers.loss:.4f} nats per token: {above} above the {answers.entropy:.4f} of the language itself."
    )
    return "\n".join(lines)


def _served(head: HeadKinds) -> str:
    """The kinds that a head is named after, such as "in tales: place, cause"."""
    return "pruned" if head.is_pruned else f"in tales: {', '.join(head.named) or 'none'}"


def _greatest(values: Floats) -> tuple[int, int] | None:
    """Layer and head of the greatest value; None if none is known."""
    if np.isnan(values).all():
        return None
    layer, head = np.unravel_index(np.nanargmax(values), values.shape)
    return int(layer), int(head)


def number(value: float) -> str:
    """Two decimals, one from 10 on: a score in four characters; a dash for NaN."""
    if math.isnan(value):
        return "–"
    return f"{value:.2f}" if abs(value) < 9.995 else f"{value:.1f}"


def _place(layer: int, head: int) -> str:
    return f"{layer}.{head}"


def _with_spread(value: float, spread: float) -> str:
    """A score and its spread, which is NaN for a single text."""
    return number(value) if math.isnan(spread) else f"{number(value)}±{number(spread)}"


def _change(value: float, error: float) -> str:
    """A change of the loss and its standard error, in 15 characters; without a sign where it rounds to 0."""
    signed = f"{value:+.4f}"
    rounded = signed if float(signed) else f"{0:.4f}"
    return f"{rounded:>8}" + (f"{'':7}" if math.isnan(error) else f"±{error:.4f}")
