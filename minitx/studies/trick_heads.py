"""Which trick removes which kind of head: of every run of `minitx compare --tricks`, the strongest head of each kind.

Read from the last line of each run's heads.jsonl, so nothing is measured twice. Differences are taken seed by seed.
"""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from minitx.data.tales.tale import KINDS
from minitx.heads.roles import ROLES, UNCLASSIFIED, roles, strength
from minitx.run.folder import Run
from minitx.run.logs import HEADS_FILE
from minitx.studies.comparison_report import TrialResult, spread
from minitx.system.errors import require
from minitx.system.figures import new_figure, picture
from minitx.system.files import write_atomically
from minitx.system.text import markdown_table
from minitx.tensorboard.head_charts import KIND

PLAIN = "plain"
CLEAR, MIN_CHANGE = 2.5, 0.1
"""A change is clear at this many spreads over seeds, which for three seeds is a t-test at 5 %. That of a head must also
be this large, in shares of the attention."""
BITS = "bits per byte"
RED, BLUE = (0.0, 0.75, 0.8), (0.85, 0.55, 0.1)
"""What a whole share more or less takes away from white, in the picture."""


class Heads(NamedTuple):
    """The heads of one trained model."""

    strongest: dict[str, float]
    """Kind of head → the `strength` of the strongest: 0 is chance and 1 all of the attention."""
    named: Counter[str]
    """Role → the number of heads that have it."""
    repetition: float
    """Loss in nats per token on random tokens that come again: what induction is good for, however it is done."""


class Change(NamedTuple):
    """What a trick changes, over seeds."""

    mean: float
    spread: float
    """Sample standard deviation over seeds; NaN of one."""
    seeds: int

    def is_clear(self, least: float = 0.0) -> bool:
        """Whether it is at least `least`, and beyond what three or more seeds differ by."""
        size = abs(self.mean)
        return self.seeds > 2 and size >= least and size > CLEAR * self.spread

    def __str__(self) -> str:
        return f"{self.mean:+.3f}" + ("" if math.isnan(self.spread) else f" ± {self.spread:.3f}")


Found = Mapping[tuple[str, int], Heads]
"""Variant and seed → the heads."""


def heads_of_run(run: Path) -> Heads:
    """The heads of a finished run at its last step."""
    lines = Run(run).heads()
    require(bool(lines), f"{run} has no readable line in {HEADS_FILE}: remove that run, and it is trained again.")
    scores = {name: np.array(values, dtype=np.float64) for name, values in lines[-1]["scores"].items()}
    chance = {name: math.nan if value is None else value for name, value in lines[-1]["chance"].items()}
    judged = {name.replace("_", " "): name for name in ROLES} | {kind: KIND.format(kind) for kind in KINDS}
    judged["induction"] = "induction_on_repeats"
    strongest = {
        kind: float(strength(scores[name], chance[name]).max()) for kind, name in judged.items() if name in scores
    }
    named = Counter(name.replace("_", " ") for name in roles(scores, chance).names.ravel().tolist())
    known = {kind: value for kind, value in strongest.items() if not math.isnan(value)}
    return Heads(known, named, lines[-1]["repeated_loss"][1])


def kinds_found(found: Found) -> list[str]:
    """The kinds of head that every run has a score for."""
    first, *others = [heads.strongest for heads in found.values()]
    return [kind for kind in first if all(kind in other for other in others)]


def change(values: Mapping[tuple[str, int], float], variant: str) -> Change:
    """`values` of a variant less those of the plain model with the same seed."""
    differences = [value - values[PLAIN, seed] for (name, seed), value in values.items() if name == variant]
    return Change(statistics.mean(differences), spread(differences), len(differences))


def of_plain(values: Mapping[tuple[str, int], float]) -> float:
    """The mean of the plain model over seeds."""
    return statistics.mean(value for (name, _), value in values.items() if name == PLAIN)


def write_trick_heads(folder: Path, results: Sequence[TrialResult], title: str) -> str:
    """Write tricks.md and tricks.png into the folder of the comparison; returns the tables."""
    found = {(result.variant, result.seed): heads_of_run(folder / result.folder) for result in results}
    bits = {(result.variant, result.seed): -result.val_bits_per_byte for result in results}
    variants = list(dict.fromkeys(result.variant for result in results))
    gains = {name: change(bits, name) for name in variants[1:]}
    again = {trial: heads.repetition for trial, heads in found.items()}
    losses = {name: change(again, name) for name in variants[1:]}
    by_kind = {}
    for kind in kinds_found(found):
        strongest = {trial: heads.strongest[kind] for trial, heads in found.items()}
        by_kind[kind] = of_plain(strongest), {name: change(strongest, name) for name in variants[1:]}
    sides = {f"gain, {BITS};\na dot a seed": (bits, gains), "loss on a repetition,\nchange in nats": (again, losses)}
    text = f"{title}\n\n{change_table(gains, of_plain(again), losses, by_kind)}\n\n{named_table(variants, found)}\n"
    write_atomically(folder / "tricks.md", text.encode())
    write_atomically(folder / "tricks.png", draw_tricks(sides, by_kind, title))
    return text


ByKind = Mapping[str, tuple[float, Mapping[str, Change]]]
"""Kind of head → its strength in the plain model, and the change that each trick makes."""

Sides = tuple[Mapping[tuple[str, int], float], Mapping[str, Change]]
"""The values of all runs, and the change that each trick makes."""


def change_table(gains: Mapping[str, Change], again: float, losses: Mapping[str, Change], by_kind: ByKind) -> str:
    """Rows for the gain, the loss on a repetition and each kind of head, a column for each trick; bold is clear."""

    def cell(found: Change, least: float = 0.0) -> str:
        return f"**{found}**" if found.is_clear(least) else str(found)

    rows = [[f"gain, {BITS}", "–", *map(cell, gains.values())]]
    rows.append(["loss on a repetition, nats", f"{again:.2f}", *map(cell, losses.values())])
    for kind, (plain, changes) in by_kind.items():
        rows.append([kind, f"{plain:.2f}", *(cell(found, MIN_CHANGE) for found in changes.values())])
    return markdown_table(["strongest head", PLAIN, *gains], rows)


def named_table(variants: Sequence[str], found: Found) -> str:
    """The mean number of heads that have each role."""

    def mean(role: str, variant: str) -> str:
        return f"{statistics.mean(heads.named[role] for (name, _), heads in found.items() if name == variant):.1f}"

    names = [name.replace("_", " ") for name in (*ROLES, UNCLASSIFIED)]
    return markdown_table(
        ["heads with the role", *variants], [[role, *(mean(role, name) for name in variants)] for role in names]
    )


def draw_tricks(sides: Mapping[str, Sides], by_kind: ByKind, title: str) -> bytes:
    """Tricks × kinds of head, coloured by the change of the strongest head where it is clear; beside it the losses."""
    kinds, tricks = list(by_kind), list(next(iter(sides.values()))[1])
    rows = len(tricks) + 1
    figure = new_figure(2.2 + 0.52 * len(kinds) + 2.2 * len(sides), 2.1 + 0.4 * rows)
    figure.suptitle(title, fontsize=10)
    widths = (0.52 * len(kinds), *[2.0] * len(sides))
    axis, *beside = figure.subplots(1, 1 + len(sides), sharey=True, width_ratios=widths)
    colours = np.ones((rows, len(kinds), 3))
    colours[0] = np.array([1 - 0.5 * max(0.0, plain) for plain, _ in by_kind.values()])[:, None]
    for column, (plain, changes) in enumerate(by_kind.values()):
        axis.text(column, 0, f"{round(plain, 2) + 0.0:.2f}", ha="center", va="center", fontsize=8)
        for row, found in enumerate(changes.values(), 1):
            clear = found.is_clear(MIN_CHANGE)
            depth = min(1.0, abs(found.mean)) if clear else 0.0
            colours[row, column] = 1 - depth * (np.array(RED if found.mean > 0 else BLUE))
            style = {"color": "black", "weight": "bold"} if clear else {"color": "0.6"}
            axis.text(column, row, f"{round(found.mean, 2) + 0.0:+.2f}", ha="center", va="center", fontsize=8, **style)
    axis.imshow(colours, aspect="auto")
    axis.axhline(0.5, color="black", linewidth=1.2)
    axis.set_xticks(range(len(kinds)), kinds, rotation=50, ha="right", rotation_mode="anchor", fontsize=9)
    axis.set_yticks(range(rows), [PLAIN, *(name.replace("_", " ") for name in tricks)], fontsize=9)
    axis.set_title("strongest head, and its change;\ncolour where it is clear", fontsize=9, loc="left")
    for panel, (label, (values, changes)) in zip(beside, sides.items(), strict=True):
        for row, (name, found) in enumerate(changes.items(), 1):
            panel.barh(row, found.mean, height=0.6, color="0.35" if found.is_clear() else "0.85")
            dots = [value - values[PLAIN, seed] for (variant, seed), value in values.items() if variant == name]
            panel.scatter(dots, [row] * len(dots), s=10, color="tab:orange", zorder=3)
        panel.axvline(0, color="black", linewidth=0.8)
        panel.tick_params(axis="y", labelleft=False)
        panel.tick_params(axis="x", labelsize=8)
        panel.locator_params(axis="x", nbins=4)
        panel.margins(x=0.15)
        panel.set_title(label, fontsize=9, loc="left")
    axis.tick_params(axis="x", length=0)
    for panel in (axis, *beside):
        panel.tick_params(axis="y", length=0)
        panel.spines[:].set_visible(False)
    return picture(figure)
