"""The figures of every head as tables for a terminal."""

from __future__ import annotations

from typing import Any

import numpy as np

from minitx.heads.roles import UNCLASSIFIED

SHORT = {
    "entropy": "entropy",
    "distance": "distance",
    "current_token": "current",
    "previous_token": "previous",
    "first_token": "first",
    "duplicate_token": "duplicate",
    "first_mention": "mention",
    "induction": "induction",
    "induction_on_repeats": "repeats",
    "semantic": "meaning",
}
"""Column of the printed table for each score."""


def as_text(found: dict[str, Any]) -> str:
    """Two tables and what they come to, for a terminal 130 characters wide."""
    names = list(SHORT)
    lines = [
        f"What each head attends to, on {found['scored_tokens']:,} tokens: score ± its standard deviation over texts.",
        "",
        "head    " + "".join(f"{SHORT[name]:>11}" for name in names) + "  role",
        "chance  " + "".join(f"{_number(found['chance'][name]):>6}     " for name in names),
    ]
    for entry in found["heads"]:
        cells = (_with_spread(entry["scores"][name], entry["spreads"][name]) for name in names)
        strength = "" if entry["role"] == UNCLASSIFIED else f" {entry['strength']:.2f}"
        lines.append(f"{_place(entry):8}" + "".join(f"{cell:>11}" for cell in cells) + f"  {entry['role']}{strength}")
    lines += [
        "",
        f"How much each head matters, on {found['tokens']:,} tokens of loss {found['loss']:.4f} nats per token.",
        "",
        "head    length  of residual       without it     held at its mean   gradient    most like",
    ]
    for entry in found["heads"]:
        change = entry.get("ablation")
        twin = entry["most_like"]
        lines.append(
            f"{_place(entry):6}{entry['contribution']:8.2f}"
            f"{entry['contribution'] / max(found['residual'][entry['layer']], 1e-9):12.0%} "
            + (
                f"  {_change(change['zero'], change['zero_error'])}  {_change(change['mean'], change['mean_error'])}"
                if change
                else f"{'not measured':>20}{'':17}"
            )
            + f"{entry['gradient']:11.5f}"
            + (f"    {_place(twin):6}{twin['similarity']:.2f}" if twin else "")
        )
    lines.append("")
    lines.append(f"{found['unclassified']:.0%} of the heads fit no role (unclassified).")
    first, second = found["repeated_loss"]
    if first is not None:
        lines.append(f"Loss on random tokens {first:.2f} nats per token, on the same again {second:.2f}.")
    if found["similarity"]:
        alike = found["similarity"]
        lines.append(f"Two heads attend alike to {alike['mean']:.2f} ± {alike['spread']:.2f}, over all pairs.")
    if "rank_correlation" in found:
        ranks = found["rank_correlation"]
        lines.append(
            "Rank correlation of the gradient with ablation: "
            f"{_number(ranks['gradient_zero'])} (without it), {_number(ranks['gradient_mean'])} (held at its mean)."
        )
    if "without_output_projection" in found:
        changes = found["without_output_projection"]
        told = ", ".join(f"{layer}: {change:+.3f}" for layer, change in enumerate(changes) if change is not None)
        if told:
            lines.append(f"With the identity for the output projection of one layer alone, the loss changes by {told}.")
    return "\n".join(lines)


def probes_as_text(found: list[dict[str, Any]]) -> str:
    """A table for each probe: a line for each head, a column for each link, candidates for one word side by side."""
    lines = ["Attention along each link, and in brackets what the same head gives the same places of other texts."]
    for probe in found:
        links, ambiguous = probe["links"], probe["ambiguous"]
        width = max(20, *(len(link["name"]) + 3 for link in links))
        lines += ["", probe["text"], ""]
        heading = "".join(f"{link['name']:<{width}}" for link in links)
        lines.append(f"head  {heading}" + ("prefers" if ambiguous else ""))
        lines.append("back  " + "".join(f"{link['distance']:<{width}}" for link in links))
        for layer, head in np.ndindex(np.array(links[0]["attention"]).shape):
            cells = (
                f"{_number(link['attention'][layer][head])} "
                f"({_number(link['chance'][layer][head])}±{_number(link['spread'][layer][head])})"
                for link in links
            )
            choices = (group["candidates"][at] for group in ambiguous if (at := group["preferred"][layer][head]) >= 0)
            lines.append(
                f"{layer}.{head:<4}" + "".join(f"{cell:<{width}}" for cell in cells) + (", ".join(choices) or "–")
            )
    return "\n".join(line.rstrip() for line in lines)


def _place(entry: dict[str, Any]) -> str:
    return f"{entry['layer']}.{entry['head']}"


def _number(value: float | None) -> str:
    """Two decimals, one from 10 on: a score in four characters."""
    if value is None:
        return "–"
    return f"{value:.2f}" if abs(value) < 9.995 else f"{value:.1f}"


def _with_spread(value: float | None, spread: float | None) -> str:
    """A score and its spread; of one text alone there is none."""
    return _number(value) if spread is None else f"{_number(value)}±{_number(spread)}"


def _change(value: float, error: float | None) -> str:
    """A change of the loss and its standard error, in 15 characters; without a sign where it rounds to nothing."""
    signed = f"{value:+.4f}"
    told = signed if float(signed) else f"{0:.4f}"
    return f"{told:>8}" + (f"{'':7}" if error is None else f"±{error:.4f}")
