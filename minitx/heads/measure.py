"""A table of every head of a model: what it attends to, how much it matters, the role it fits, the links it follows.

`describe` and `describe_probes` measure and return plain data for JSON; `as_text`, `probes_as_text` and `as_picture`
show it, and `history_as_picture` shows how the scores of a run came about.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from minitx.config.settings import Probe
from minitx.data.tokenizer import Tokenizer
from minitx.heads.importance import Tokens, ablate, survey, without_output_projection
from minitx.heads.links import measure_links, place, preferred, rivals
from minitx.heads.record import patterns, repeats, scored_text
from minitx.heads.scores import (
    SCORES,
    UNCLASSIFIED,
    chance,
    rank_correlation,
    role,
    score_heads,
    semantic_correlation,
    similarity,
    spread_over_texts,
)
from minitx.model import Transformer

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


def describe(
    model: Transformer,
    tokens: Tokens,
    *,
    ablation: bool = True,
    projection: bool = False,
    advance: Callable[[int], None] | None = None,
    precision: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> dict[str, Any]:
    """Everything about the heads of `model` on a text of at least 2 tokens, as plain data with None for "no figure".

    Patterns are scored on the first sequences of the text (`heads.scored_text`); losses are over all of it. `advance`
    is told the number of tokens done, which are the whole text once, and once more each for `ablation` and
    `projection`. Whether a head has the role of induction is judged on random tokens that come twice, as in the
    literature, for a text's repeats often go on otherwise.
    `precision` makes the context that losses are computed in; patterns are in float32.
    Without `ablation` its figures are left out; with `projection` the loss without the output projections is added.
    """
    text = scored_text(model, tokens)
    seen, scored = patterns(model, text), text.numpy()
    scores, spreads = score_heads(seen, scored), spread_over_texts(seen, scored)
    by_chance = {name: chance(scored, name) for name in SCORES}
    embedding = model.embedding.weight.detach().float().cpu().numpy()
    semantic = semantic_correlation(seen, scored, embedding)
    by_text = [semantic_correlation(seen[:, [i]], scored[[i]], embedding) for i in range(len(scored))]
    semantic_spread = np.std(by_text, axis=0, ddof=1) if len(by_text) > 1 else np.full_like(semantic, np.nan)
    repeated = repeats(model, tokens)
    scores["induction_on_repeats"], spreads["induction_on_repeats"] = repeated.induction, repeated.spread
    by_chance["induction_on_repeats"] = repeated.chance
    alike = similarity(seen[:, :2])
    np.fill_diagonal(alike, -1)
    pairs = alike[np.tril_indices(len(alike), -1)]
    with precision():
        measured = survey(model, tokens, advance=advance)
        ablated = ablate(model, tokens, measured.mean_share, advance=advance) if ablation else None
        unprojected = list(without_output_projection(model, tokens, advance=advance)) if projection else None

    heads = []
    n_head = scores["entropy"].shape[1]
    for layer, head in np.ndindex(scores["entropy"].shape):
        judged = {key: float(values[layer, head]) for key, values in scores.items()}
        judged["induction"] = judged["induction_on_repeats"]
        name, strength = role(judged, by_chance | {"induction": repeated.chance})
        twin = int(alike[layer * n_head + head].argmax())
        entry: dict[str, Any] = {
            "layer": layer,
            "head": head,
            "role": name,
            "strength": strength,
            "scores": {key: values[layer, head] for key, values in scores.items()}
            | {"semantic": semantic[layer, head]},
            "spreads": {key: values[layer, head] for key, values in spreads.items()}
            | {"semantic": semantic_spread[layer, head]},
            "contribution": measured.contribution[layer, head],
            "gradient": measured.gradient[layer, head],
            "most_like": None
            if len(alike) == 1
            else {"layer": twin // n_head, "head": twin % n_head, "similarity": alike[layer * n_head + head, twin]},
        }
        if ablated is not None:
            entry["ablation"] = {
                "zero": ablated.zero[layer, head],
                "zero_error": ablated.zero_error[layer, head],
                "mean": ablated.mean[layer, head],
                "mean_error": ablated.mean_error[layer, head],
            }
        heads.append(entry)
    found: dict[str, Any] = {
        "scored_tokens": text.numel(),
        "tokens": len(tokens),
        "loss": measured.loss,
        "chance": by_chance | {"semantic": 0.0},
        "heads": heads,
        "unclassified": sum(entry["role"] == UNCLASSIFIED for entry in heads) / len(heads),
        "residual": list(measured.residual),
        "repeated_loss": [repeated.first_loss, repeated.second_loss],
        "similarity": {"mean": pairs.mean(), "spread": pairs.std()} if len(pairs) else None,
    }
    if ablated is not None:
        found["rank_correlation"] = {
            "gradient_zero": rank_correlation(measured.gradient, ablated.zero),
            "gradient_mean": rank_correlation(measured.gradient, ablated.mean),
        }
    if unprojected is not None:
        found["without_output_projection"] = unprojected
    plain: dict[str, Any] = _plain(found)
    return plain


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


def describe_probes(
    model: Transformer, tokenizer: Tokenizer, probes: Sequence[Probe], others: Tokens
) -> list[dict[str, Any]]:
    """For each probe with links, its links and the ambiguous words among them, as plain data; chance from `others`."""
    found = []
    for probe in probes:
        tokens = tokenizer.encode(probe.text)[: model.config.context_length]
        placed = place(probe, [tokenizer.token_bytes(token) for token in tokens])
        if not placed:
            continue
        seen = patterns(model, torch.tensor([tokens]))[:, 0]
        links = measure_links(model, placed, seen, others)
        shown = [
            {
                "name": one.link.name,
                "distance": one.link.queries.start - one.link.keys.stop + 1,
                "attention": one.attention.tolist(),
                "chance": one.chance.tolist(),
                "spread": one.spread.tolist(),
            }
            for one in links
        ]
        ambiguous = [
            {"candidates": [one.link.name for one in group], "preferred": preferred(group).tolist()}
            for group in rivals(links)
        ]
        found.append({"text": probe.text, "tokens": len(tokens), "links": shown, "ambiguous": ambiguous})
    plain: list[dict[str, Any]] = _plain(found)
    return plain


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


def as_picture(found: dict[str, Any], file: Path, title: str) -> None:
    """A PNG or whatever `file` is named after: layers × heads, a panel for each figure.

    White is the level of chance. Full red of a share of the attention is all of it, so a faint panel is a score that
    no head reaches; of entropy and distance it is twice chance, of the correlation 0.5, of losses the largest change.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    panels: list[tuple[str, NDArray[np.float64], float, float]] = []  # caption, values, what is white, reach of colours
    for name in SHORT:
        grid, level = _grid(found, "scores", name), found["chance"][name] or 0.0
        reach = {"entropy": level, "distance": level, "semantic": 0.5}.get(name, 1 - level)
        panels.append((f"{name.replace('_', ' ')}  (chance {_number(found['chance'][name])})", grid, level, reach))
    relative = _grid(found, "contribution") / np.maximum(np.array(found["residual"])[:, None], 1e-9)
    panels.append(("length added / residual's", relative, 0.0, 1.0))
    if "ablation" in found["heads"][0]:
        zero = _grid(found, "ablation", "zero")
        panels.append(("loss without it, change", zero, 0.0, float(np.abs(zero).max())))
        mean = _grid(found, "ablation", "mean")
        panels.append(("loss with it at its mean, change", mean, 0.0, float(np.abs(zero).max())))
    gradient = _grid(found, "gradient")
    panels.append(("gradient of its gate", gradient, 0.0, float(gradient.max())))
    layers, heads = panels[0][1].shape
    columns = 5
    rows = math.ceil(len(panels) / columns)
    panel_width, panel_height = max(2.6, 0.55 * heads + 0.9), max(1.7, 0.38 * layers + 0.9)
    figure = Figure(figsize=(columns * panel_width, rows * panel_height + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, (caption, grid, level, reach) in zip(axes.flat, panels, strict=False):
        reach = max(reach, 1e-9)
        norm = Normalize(level - reach, level + reach)
        axis.imshow(grid, norm=norm, cmap="RdBu_r", aspect="auto")
        axis.set_title(caption, fontsize=9)
        axis.set_xticks(range(heads), [str(head) for head in range(heads)], fontsize=7)
        axis.set_yticks(range(layers), [str(layer) for layer in range(layers)], fontsize=7)
        axis.tick_params(length=0)
        for (layer, head), value in np.ndenumerate(grid):
            dark = abs(norm(value) - 0.5) > 0.35
            axis.text(
                head, layer, _cell(value), ha="center", va="center", fontsize=7, color="white" if dark else "black"
            )
    figure.supxlabel("head", fontsize=9)
    figure.supylabel("layer", fontsize=9)
    figure.savefig(file, dpi=120)


def history_as_picture(lines: list[dict[str, Any]], file: Path, title: str) -> None:
    """How every head came to its scores: a panel per score over steps, a line per head, coloured by layer, and the
    loss on random tokens and on their repetition. `lines` are those of heads.jsonl."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps = [line["step"] for line in lines]
    names = [name for name, values in lines[0]["scores"].items() if any(v is not None for row in values for v in row)]
    columns = 5
    rows = math.ceil((len(names) + 1) / columns)
    figure = Figure(figsize=(14, 2.5 * rows + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(names) + 1 :]:
        axis.axis("off")
    mark = "." if len(steps) < 30 else None
    for axis, name in zip(axes.flat, names, strict=False):
        values = np.array([line["scores"][name] for line in lines], dtype=np.float64)  # (step, layer, head)
        for layer, head in np.ndindex(values.shape[1:]):
            colour = colormaps["viridis"](layer / max(1, values.shape[1] - 1) * 0.85)
            label = f"layer {layer}" if head == 0 and name == names[0] else None
            axis.plot(steps, values[:, layer, head], color=colour, linewidth=1.2, marker=mark, label=label)
        axis.set_title(name.replace("_", " "), fontsize=9)
        if (by_chance := lines[0]["chance"].get(name)) is not None:
            axis.axhline(by_chance, color="0.4", linestyle="--", linewidth=1)
            axis.set_title(f"{name.replace('_', ' ')}  (dashed: chance)", fontsize=9)
        if name not in ("entropy", "distance", "importance"):
            axis.set_ylim(-0.02, 1.02)
    losses = np.array([line["repeated_loss"] for line in lines], dtype=np.float64)  # (step, half)
    loss_axis = axes.flat[len(names)]
    loss_axis.plot(steps, losses[:, 0], color="0.6", marker=mark, label="random tokens")
    loss_axis.plot(steps, losses[:, 1], color="tab:red", marker=mark, label="their repetition")
    loss_axis.set_title("loss, nats per token", fontsize=9)
    loss_axis.legend(fontsize=7)
    axes.flat[0].legend(fontsize=7)
    for axis in axes.flat[: len(names) + 1]:
        axis.tick_params(labelsize=7)
    figure.supxlabel("step", fontsize=9)
    figure.savefig(file, dpi=120)


def _grid(found: dict[str, Any], *keys: str) -> NDArray[np.float64]:
    """(layer, head) of one figure."""
    shape = [max(entry[axis] for entry in found["heads"]) + 1 for axis in ("layer", "head")]
    grid = np.full(shape, np.nan)
    for entry in found["heads"]:
        value = entry
        for key in keys:
            value = value[key]
        grid[entry["layer"], entry["head"]] = np.nan if value is None else value
    return grid


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


def _cell(value: float) -> str:
    if math.isnan(value):
        return "–"
    if 0 < abs(value) < 0.0095:
        return f"{value:.0e}".replace("e-0", "e-")
    return _number(value)


def _plain(value: Any) -> Any:
    """Plain numbers in place of numpy's; None in place of NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _plain(inside) for key, inside in value.items()}
    if isinstance(value, list):
        return [_plain(inside) for inside in value]
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else float(value)
    return value
