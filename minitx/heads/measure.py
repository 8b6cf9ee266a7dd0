"""A table of every head of a model: what it attends to, how much it matters, the role it fits, the links it follows.

`measure_heads` and `measure_probes` measure and return plain data for JSON; `as_text`, `probes_as_text` and
`as_picture`
show it, and `history_as_picture` shows how the scores of a run came about.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from minitx.config.probes import Probe
from minitx.data.tokenizer import Tokenizer
from minitx.heads.importance import Tokens, ablate, survey, without_output_projection
from minitx.heads.likeness import rank_correlation, semantic_correlation, similarity
from minitx.heads.links import competing_links, measure_links, preferred, tokens_of_links
from minitx.heads.record import patterns, scored_text
from minitx.heads.repeats import score_repetition
from minitx.heads.roles import UNCLASSIFIED, role
from minitx.heads.scores import SCORES, chance, score_heads, spread_over_texts
from minitx.model import Transformer


def measure_heads(
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
    repeated = score_repetition(model, tokens)
    scores["induction_on_repeats"], spreads["induction_on_repeats"] = repeated.induction, repeated.spread
    by_chance["induction_on_repeats"] = repeated.chance
    alike = similarity(seen[:, :2])
    np.fill_diagonal(alike, -1)
    pairs = alike[np.tril_indices(len(alike), -1)]
    with precision():
        measured = survey(model, tokens, advance=advance)
        ablated = ablate(model, tokens, measured.mean_output, advance=advance) if ablation else None
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


def measure_probes(
    model: Transformer, tokenizer: Tokenizer, probes: Sequence[Probe], others: Tokens
) -> list[dict[str, Any]]:
    """For each probe with links, its links and the ambiguous words among them, as plain data; chance from `others`."""
    found = []
    for probe in probes:
        tokens = tokenizer.encode(probe.text)[: model.config.context_length]
        placed = tokens_of_links(probe, [tokenizer.token_bytes(token) for token in tokens])
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
            for group in competing_links(links)
        ]
        found.append({"text": probe.text, "tokens": len(tokens), "links": shown, "ambiguous": ambiguous})
    plain: list[dict[str, Any]] = _plain(found)
    return plain


def _plain(value: Any) -> Any:
    """Plain numbers in place of numpy's; None in place of NaN, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _plain(inside) for key, inside in value.items()}
    if isinstance(value, list):
        return [_plain(inside) for inside in value]
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else float(value)
    return value
