"""The runs that claims are tried on: many small models, each trained on tales and measured once.

The figures of a run lie beside it, so the same command goes on where it was cut off. Several processes may work on one
folder: each takes the runs that no other has taken.
"""

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout

from minitx.config import Config, ModelConfig
from minitx.data.tales.tale import KINDS, Tale
from minitx.heads.importance import with_identity_projection
from minitx.heads.kinds import Answers, Mean, answer, by_kind, is_right, kinds_of_heads, look, use
from minitx.heads.places import TaleBatch, held_out_tales, place_tales
from minitx.model import Transformer
from minitx.model_size import cache_bytes_per_token, parameter_count
from minitx.run.folder import Run
from minitx.run.text import prepared_text
from minitx.studies.comparison import (
    Trials,
    Variants,
    is_trained,
    kind_variants,
    train_trial,
)
from minitx.studies.pruning import access_without, heads_of
from minitx.studies.pruning_curve import Curve, measure_curve
from minitx.system.files import json_bytes, read_json, without_nan, write_atomically
from minitx.system.runtime import choose_runtime
from minitx.training.session import Prepare, untrained

KINDS_OF_ATTENTION = ("grouped_query", "multi_query", "latent")
PROJECTION = "identity projection"
"""Trained with the identity in place of every output projection."""
DECIDED = [kind for kind in KINDS if kind != "ambiguous"]
"""The kinds whose words can be known."""
TALES, RANDOM_ORDERS = 1000, 5
ByKind = dict[str, list[list[float]]]
"""Kind → (layer, head)."""


@dataclass(frozen=True)
class HeadFigures:
    """What every head does in held-out tales."""

    excess: ByKind
    """Attention to the word that decides, less control."""
    drop: ByKind
    """Accuracy lost without the head."""
    names: list[list[list[str]]]
    """[layer][head]: `kinds_of_heads`."""
    readings: list[list[list[float]]]
    """[reading](layer, head): attention of the word before an ambiguous one to watcher and to watched, less control."""


@dataclass(frozen=True)
class Figures:
    """What one trained model reached on held-out tales. Mean accuracy is over the kinds in `DECIDED`."""

    parameters: int
    cache_bytes: int
    """Per token."""
    loss: float
    above: float
    """Nats per token above the entropy of the language."""
    mean_accuracy: float
    accuracy: dict[str, float]
    new: dict[str, float]
    """Accuracy where training never had this pair of words."""
    heads: HeadFigures | None = None
    """Of models with the usual number of heads, and of the same at step 0."""
    heads_at_start: HeadFigures | None = None
    pruning: Curve | None = None
    """Of the usual model: its losses are -mean accuracy on half of the tales; orders were chosen on the other half."""
    half_error: float | None = None
    """Standard error of the mean accuracy on that half."""
    unprojected: dict[str, list[float]] | None = None
    """Layer, or all → nats above entropy and mean accuracy with the identity as output projection there."""


Results = Mapping[tuple[str, int], Figures]
"""Variant and seed → figures."""


def shape_name(layers: int, heads: int) -> str:
    """The name of a multi-head model."""
    return f"{layers} layer{'s' * (layers > 1)} {heads} head{'s' * (heads > 1)}"


def claim_variants(model: ModelConfig, is_short: bool) -> Variants:
    """The models that are trained: depths with one and several heads, head counts, kinds of attention."""
    base = kind_variants(model, ["multi_head"])["multi_head"]
    counts = [1 << i for i in range(10) if model.d_model % (2 << i) == 0]
    shapes = [(base.n_layer, base.n_head)]
    shapes += [(layers, heads) for layers in (1, base.n_layer, 4) for heads in (base.n_head, 1)]
    shapes += [(base.n_layer, heads) for heads in counts]
    if is_short:
        shapes = [shape for shape in shapes if shape[0] == base.n_layer and shape[1] in (base.n_head, 1, counts[-1])]
    variants = {shape_name(*shape): dataclasses.replace(base, n_layer=shape[0], n_head=shape[1]) for shape in shapes}
    return {**variants, **kind_variants(model, KINDS_OF_ATTENTION), PROJECTION: base}


def finish(trials: Trials, base: ModelConfig, n_tales: int) -> int:
    """Train and measure every run that has no figures yet; 0, or the exit status of a run that stopped."""
    began, missing = time.monotonic(), left_of(trials)
    print(f"{len(trials)} runs, {len(missing)} to train and measure", flush=True)
    for wait in (False, True):  # at last for other processes
        for variant, seed in left_of(trials):
            config = trials[variant, seed]
            with contextlib.suppress(Timeout), FileLock(f"{config.out}.lock", blocking=wait):
                if os.path.lexists(f"{config.out}.json"):
                    continue
                prepare: Prepare = fix_output_projections if variant == PROJECTION else lambda model: None
                status = 0 if is_trained(config) else train_trial(config, prepare)
                if status:
                    return status
                figures = measure(variant, config, base, n_tales)
                write_atomically(Path(f"{config.out}.json"), json_bytes(without_nan(dataclasses.asdict(figures))))
                left = len(left_of(trials))
                seconds = (time.monotonic() - began) * left / (len(missing) - left)
                print(
                    f"{variant}, seed {seed}: {figures.above:.4f} nats above entropy, mean accuracy "
                    f"{figures.mean_accuracy:.3f}; {left} runs, about {seconds / 60:.0f} min left",
                    flush=True,
                )
    return 0


def left_of(trials: Trials) -> list[tuple[str, int]]:
    """The runs without figures."""
    return [trial for trial, config in trials.items() if not os.path.lexists(f"{config.out}.json")]


def read_results(trials: Trials) -> Results:
    """The figures of all runs; raises UserError where a file is damaged."""
    results = {}
    for trial, config in trials.items():
        content = read_json(Path(f"{config.out}.json"))
        parts = {"heads": HeadFigures, "heads_at_start": HeadFigures, "pruning": Curve}
        read = {name: kind(**content[name]) for name, kind in parts.items() if content[name] is not None}
        results[trial] = Figures(**{**content, **read})
    return results


def fix_output_projections(model: Transformer) -> None:
    """Make every output projection the identity; without a gradient it stays so."""
    for name, parameter in model.named_parameters():
        if name.endswith("attention.output.weight"):
            torch.nn.init.eye_(parameter)
            parameter.register_hook(torch.zeros_like)


def measure(variant: str, config: Config, base: ModelConfig, n_tales: int) -> Figures:
    """Measure a finished run on held-out tales."""
    run, model_config = Run(Path(config.out)), config.model
    tokenizer, length = run.tokenizer(), model_config.context_length
    device = choose_runtime(config.device, config.dtype, config.compile, config.threads).device
    model, _ = run.load_model("last", device)
    told = held_out_tales(config, n_tales)
    halves = [place_tales(told[start::2], tokenizer, length) for start in (0, 1)]
    batches = halves[0] + halves[1]
    answers = answer(model, batches)
    figures = Figures(
        parameter_count(model_config, tokenizer.vocab_size),
        cache_bytes_per_token(model_config),
        answers.loss,
        answers.above.value,
        over_kinds(answers.accuracy).value,
        answers.shares(),
        {kind: mean.value for kind, mean in answers.new.items()},
    )
    if variant == PROJECTION or model_config.attention == "latent" or model_config.kv_heads != base.n_head:
        return figures
    ambiguous = [place_tales([as_read(tale, reading) for tale in told], tokenizer, length) for reading in (0, 1)]
    start = untrained(config, tokenizer.vocab_size, prepared_text(config, run).train).to(device)
    heads = measure_heads(model, answers, batches, ambiguous)
    at_start = measure_heads(start, answer(start, batches), batches, ambiguous)
    figures = dataclasses.replace(figures, heads=heads, heads_at_start=at_start)
    if model_config.n_layer != base.n_layer:
        return figures
    layers = range(base.n_layer)
    changed = {"all": answer(with_identity_projection(model, layers), batches)}
    changed |= {str(layer): answer(with_identity_projection(model, [layer]), batches) for layer in layers}
    unprojected = {name: [found.above.value, over_kinds(found.accuracy).value] for name, found in changed.items()}
    losses = [functools.cache(lambda gone, half=half: -accuracy_without(model, half, gone).value) for half in halves]
    choosing, measuring = (lambda gone, loss=loss: loss(frozenset(gone)) for loss in losses)
    curve = measure_curve(heads_of(model_config), choosing, measuring, range(RANDOM_ORDERS))
    error = accuracy_without(model, halves[1], []).error
    return dataclasses.replace(figures, pruning=curve, half_error=error, unprojected=unprojected)


def measure_heads(
    model: Transformer, answers: Answers, batches: Sequence[TaleBatch], ambiguous: Sequence[Sequence[TaleBatch]]
) -> HeadFigures:
    """What every head does; `answers`: of the model; `ambiguous`: the tales for each reading, see `as_read`."""
    looks, uses = look(model, batches), use(model, batches)
    return HeadFigures(
        {kind: mean.value.tolist() for kind, mean in looks.excess.items()},
        {kind: mean.value.tolist() for kind, mean in uses.mean.items()},
        kinds_of_heads(answers, looks, uses),
        [look(model, reading).excess["ambiguous"].value.tolist() for reading in ambiguous],
    )


def as_read(tale: Tale, reading: int) -> Tale:
    """The tale with its ambiguous labels alone, decided by the watcher (`reading` 0), or by the watched (1)."""
    labels = [label for label in tale.labels if label.kind == "ambiguous"]
    targets = [sorted([label.target, *label.others])[reading] for label in labels]
    return tale._replace(labels=tuple(a._replace(target=b) for a, b in zip(labels, targets, strict=True)))


def accuracy_without(model: Transformer, batches: Sequence[TaleBatch], gone: Collection[tuple[int, int]]) -> Mean:
    """Mean accuracy without these heads."""
    device, access = model.embedding.weight.device, access_without(model, gone)
    right = []
    with torch.inference_mode():
        for batch in batches:
            residual = model.residual(batch.tokens[:, :-1].to(device), heads=access)
            right.append(is_right(model, residual, batch.places))
    return over_kinds(by_kind(np.concatenate(right), batches))


def over_kinds(accuracy: Mapping[str, Mean]) -> Mean:
    """The mean over the kinds in `DECIDED` that were asked for; an error that is not known counts as 0."""
    values, errors = np.transpose([accuracy[kind] for kind in DECIDED])
    return Mean(float(np.nanmean(values)), float(np.sqrt(np.nansum(errors**2))) / int((~np.isnan(values)).sum()))
