"""The claims as one table with the figures behind it, one picture and JSON."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from minitx.config import Config
from minitx.data.tales.tale import KINDS
from minitx.run.folder import Run
from minitx.studies.claims_runs import KINDS_OF_ATTENTION, Results
from minitx.studies.claims_tried import ABOVE, Study, of_kind, tried_claims
from minitx.studies.claims_verdicts import RULE, Claim
from minitx.system.figures import new_figure, picture
from minitx.system.files import write_atomically
from minitx.system.text import markdown_table


def write_claims(folder: Path, config: Config, results: Results, seeds: Sequence[int], about: Sequence[str]) -> str:
    """Write claims.md, claims.png and claims.json into `folder`; returns the table. about: lines below the title."""
    study, model = Study(results, seeds, config.model), config.model
    claims = [*tried_claims(study)]
    shape = f"{model.n_layer} layers × {model.n_head} heads × {model.d_model}"
    title = f"Claims about attention heads: {shape}, {len(seeds)} seeds from {seeds[0]}, {config.train.steps} steps"
    table = claims_table(claims, len(seeds))
    parts = [f"# {title}", *about, table, RULE]
    for claim in claims:
        tables = [f"{each.title}:\n\n{markdown_table(each.columns, each.rows)}" for each in claim.tables]
        parts += [f"## {claim.name}: {claim.verdict}", f"{claim.sentence} ({claim.source})", measured(claim), *tables]
    write_atomically(folder / "claims.md", ("\n\n".join(parts) + "\n").encode())
    draw_claims(study, folder / "claims.png", title)
    content = [
        {
            **{name: getattr(claim, name) for name in ("name", "sentence", "source", "note", "verdict")},
            "measured": measured(claim),
            "evidence": [{**each._asdict(), "values": [*map(float, each.values)]} for each in claim.evidence],
            "tables": [each._asdict() for each in claim.tables],
        }
        for claim in claims
    ]
    Run(folder).write_json("claims.json", {"title": title, "about": list(about), "rule": RULE, "claims": content})
    return table


def claims_table(claims: Sequence[Claim], n_seeds: int) -> str:
    """A row per claim; spreads are standard deviations over seeds."""
    columns = ["", "claim", "source", "measured (mean ± spread over seeds)", "seeds", "verdict"]
    rows = [[each.name, each.sentence, each.source, measured(each), n_seeds, each.verdict] for each in claims]
    return markdown_table(columns, rows, left=[True] * len(columns))


def measured(claim: Claim) -> str:
    """The evidence and the note of a claim on one line."""
    return "; ".join([*map(str, claim.evidence), *[claim.note] * bool(claim.note)])


def draw_claims(study: Study, file: Path, title: str) -> None:
    """Five panels: depth and heads, head counts, what heads are good for, pruning, kinds of attention."""
    figure = new_figure(15, 10)
    figure.suptitle(title, fontsize=12)
    panels = figure.subplot_mosaic([["a", "c", "g"], ["b", "c", "g"], ["e", "c", "g"]], width_ratios=[1.1, 1, 1.2])
    for i, label in enumerate(("one head", f"{study.model.n_head} heads")):
        draw_line(panels["a"], study, {layers: pair[i] for layers, pair in study.depths.items()}, label)
    panels["a"].set(
        title="(a) one head and several", xlabel="layers", ylabel="nats above entropy", xticks=[*study.depths]
    )
    draw_line(panels["b"], study, study.counts, "")
    panels["b"].set(title="(b) head counts, equal parameters", xlabel="heads in a layer", ylabel="nats above entropy")
    panels["b"].set_xscale("log", base=2)
    panels["b"].set_xticks([*study.counts], [*map(str, study.counts)])
    if study.has(study.usual):
        draw_uses(panels["c"], study)
        draw_pruning(panels["e"], study)
    draw_kinds(panels["g"], study)
    for name in "ab":
        panels[name].set_ylim(bottom=0)
    if study.depths:
        panels["a"].legend(frameon=False)
    for name in "abe":
        panels[name].spines[["top", "right"]].set_visible(False)
    write_atomically(file, picture(figure))


def draw_line(axes: Axes, study: Study, variants: dict[int, str], label: str) -> None:
    """Mean loss against a number, with a dot per seed."""
    losses = np.array([study.values(name, ABOVE) for name in variants.values()])  # (variant, seed)
    if len(losses):
        (line,) = axes.plot([*variants], losses.mean(axis=1), label=label, marker="_", markersize=12)
        axes.plot([*variants], losses, color=line.get_color(), marker="o", markersize=4, alpha=0.5, linestyle="")


def draw_uses(axes: Axes, study: Study) -> None:
    """Accuracy lost without each head of the first seed; a dot where a head is named after the kind."""
    heads = study.figures(study.usual)[0].heads
    assert heads is not None
    drops = np.array([np.ravel(heads.drop[kind]) for kind in KINDS], dtype=np.float64)
    axes.imshow(drops, cmap="RdBu_r", vmin=-0.5, vmax=0.5, aspect="auto")
    places = [*np.ndindex(study.model.n_layer, study.model.n_head)]
    for column, (layer, head) in enumerate(places):
        for row, kind in enumerate(KINDS):
            text = f"{drops[row, column]:.2f}" + "•" * (kind in heads.names[layer][head])
            colour = "white" if abs(drops[row, column]) > 0.3 else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(places)), [f"{layer}.{head}" for layer, head in places], fontsize=8)
    axes.set_yticks(range(len(KINDS)), [*KINDS], fontsize=8)
    axes.set(title=f"(c) accuracy lost without a head, seed {study.seeds[0]} (• named)", xlabel="layer.head")


def draw_pruning(axes: Axes, study: Study) -> None:
    """Mean accuracy against heads removed: greedy, and the mean of random orders, each with its range over seeds."""
    curves = [run.pruning for run in study.figures(study.usual) if run.pruning]
    orders = {"greedy": [each.losses["greedy"] for each in curves]}
    orders["random"] = [losses for each in curves for losses in each.random_losses]
    for label, losses in orders.items():
        accuracy = -np.array(losses)  # (curve, removed)
        (line,) = axes.plot(accuracy.mean(axis=0), marker=".", label=label)
        band = (accuracy.min(axis=0), accuracy.max(axis=0))
        axes.fill_between(range(accuracy.shape[1]), *band, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set(title="(e) heads removed", xlabel="heads removed", ylabel="mean accuracy")
    axes.legend(frameon=False)


def draw_kinds(axes: Axes, study: Study) -> None:
    """Accuracy by kind of relationship for each kind of attention."""
    for i, variant in enumerate(filter(study.has, [study.usual, *KINDS_OF_ATTENTION])):
        values = np.array([study.values(variant, of_kind(kind)) for kind in KINDS])  # (kind, seed)
        rows = np.arange(len(KINDS)) + 0.18 * (i - 1.5)
        label = "multi-head" if variant == study.usual else variant.replace("_", " ")
        axes.plot(values.mean(axis=1), rows, "o", markersize=5, color=f"C{i}", label=label)
        axes.hlines(rows, values.min(axis=1), values.max(axis=1), color=f"C{i}", linewidth=1)
    axes.set_yticks(range(len(KINDS)), [*KINDS], fontsize=8)
    axes.set(title="(g) kinds of attention (mean, range over seeds)", xlabel="accuracy", ylim=(len(KINDS) - 0.5, -0.5))
    axes.grid(axis="x", alpha=0.3)
    axes.legend(frameon=False, fontsize=9, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.05))
