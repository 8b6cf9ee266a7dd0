"""`minitx compare`: train a model with several head counts, kinds of attention or tricks, once per seed.

All variants of a seed have the same data, order of batches and settings: differences are taken seed by seed. All seeds
have the same held-out documents, unless data.seed is null.
"""

import contextlib
import dataclasses
import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from minitx.config import Config, GenerateConfig, ModelConfig
from minitx.data.batches import Batches, dropout_of
from minitx.data.prepare import Prepared
from minitx.fast.compiler import forget_programs
from minitx.generation.generate import generate
from minitx.model import Transformer
from minitx.model_size import matrix_parameters
from minitx.run import checkpoints
from minitx.run.folder import Run
from minitx.run.text import prepared_text
from minitx.studies.comparison_report import Speeds, TrialResult, log_speeds, write_comparison
from minitx.studies.trick_heads import PLAIN, write_trick_heads
from minitx.system.errors import require
from minitx.system.fields import Fields
from minitx.system.files import open_log, remove, remove_drafts_of
from minitx.system.runtime import Runtime, choose_runtime
from minitx.system.text import warn
from minitx.system.timing import Candidate, alternate
from minitx.training.loop import train_step, training_loss
from minitx.training.optim import build_optimizers, set_learning_rate
from minitx.training.parallel import ALONE
from minitx.training.session import Prepare, train

Variants = Mapping[str, ModelConfig]
"""The models that are compared, by name."""
Trials = Mapping[tuple[str, int], Config]
"""Variant and seed → the configuration of that run."""

FILE, SUMMARY = "comparison.json", "summary.json"


def compare(
    config: Config, counts: list[int] | None, kinds: list[str] | None, n_seeds: int, tricks: list[str] | None = None
) -> int:
    """Train what is not trained yet, measure it, write and print the comparison; the exit status.

    The models have the head counts, the kinds of attention or the tricks named: one of these is given.
    """
    require(
        config.model.kept_heads is None, "model.kept_heads is set, but only whole models are compared: leave it out."
    )
    # Samples are not compared, so none are written.
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, sample_every=0))
    if tricks is not None:
        every = config.log.heads_every
        require(every > 0, "log.heads_every is 0, but tricks are compared by the scores of heads: leave it out.")
        variants = trick_variants(config.model, tricks)
    else:
        variants = kind_variants(config.model, kinds or []) if counts is None else head_variants(config.model, counts)
    runtime = choose_runtime(config.device, config.dtype, config.compile, config.threads)
    print(runtime.describe(), flush=True)
    prepared = prepared_text(config)
    if counts is not None:
        check_equal_size(variants, prepared.tokenizer.vocab_size)

    seeds = range(config.seed, config.seed + n_seeds)
    plan = comparison_plan(config, variants, seeds, prepared.fingerprint)
    folder = comparison_folder(config.out, plan)
    print(f"comparison in {folder}", flush=True)
    trials = trials_in(folder, config, variants, seeds)
    status = train_missing(trials)
    if status:
        return status
    results = [trial_result(name, trials[name, seed]) for name in variants for seed in seeds]
    speeds = recorded_speeds(folder, variants)
    if speeds is None:
        print("timing training steps and decoding", flush=True)
        speeds = time_variants(variants, config, prepared, runtime)
        log_speeds(folder, results, speeds, config.train.steps + 1)
    tokens = config.train.batch_size * config.train.grad_accum * config.model.context_length
    title = (
        f"{len(variants)} models × {n_seeds} seed{'s' * (n_seeds > 1)}, {config.train.steps} steps of "
        f"{tokens:,} tokens, {runtime.device}"
    )
    print(f"\n{write_comparison(folder, plan, results, speeds, title)}")
    if tricks is not None:
        print(write_trick_heads(folder, results, title))
        print(f"What becomes of the heads is in {folder}/tricks.md and .png.")
    print(f"Table, picture and figures are in {folder}/comparison.md, .png, .json. Next:")
    print(f"  tensorboard --logdir {folder}")
    return 0


def head_variants(model: ModelConfig, counts: Sequence[int]) -> Variants:
    """`model` with each number of heads."""
    return {f"{count} head{'s' * (count > 1)}": dataclasses.replace(model, n_head=count) for count in counts}


def kind_variants(model: ModelConfig, kinds: Sequence[str]) -> Variants:
    """`model` with each of the kinds multi_head, grouped_query, multi_query and latent.

    Grouped queries take the model's n_kv_head, or the largest number of groups below n_head. Raises UserError where no
    number of groups lies between 1 and n_head.
    """
    between = [n for n in range(2, model.n_head) if model.n_head % n == 0]
    grouped = model.n_kv_head if model.n_kv_head in between else max(between, default=None)
    require(
        grouped is not None or "grouped_query" not in kinds,
        f"model.n_head is {model.n_head}, which nothing between it and 1 divides: leave grouped_query out, or take 4.",
    )
    plain = dataclasses.replace(model, attention="multi_head", n_kv_head=None, d_latent=None, d_rotary=None)
    variants = {
        "multi_head": plain,
        "grouped_query": dataclasses.replace(plain, n_kv_head=grouped),
        "multi_query": dataclasses.replace(plain, n_kv_head=1),
        "latent": dataclasses.replace(model, attention="latent", n_kv_head=None),
    }
    return {kind: variants[kind] for kind in kinds}


def trick_variants(model: ModelConfig, tricks: Sequence[str]) -> Variants:
    """`model` without any trick, and with each one alone."""
    require(not model.tricks, "model.tricks is set, but --tricks adds each to a model without any: leave it out.")
    return {PLAIN: model} | {name: dataclasses.replace(model, tricks=[name]) for name in tricks}


def check_equal_size(variants: Variants, vocab_size: int) -> None:
    """Raise `UserError` unless the matrices of all variants have the same number of parameters.

    The vectors of query-key norm may differ: they are as wide as a head.
    """
    sizes = {name: matrix_parameters(model, vocab_size) for name, model in variants.items()}
    require(
        len(set(sizes.values())) == 1,
        "The models are not of equal size, so their losses could not be compared ("
        + ", ".join(f"{name}: {size:,} parameters" for name, size in sizes.items())
        + "): leave model.n_kv_head and model.attention out.",
    )


def comparison_plan(config: Config, variants: Variants, seeds: Sequence[int], fingerprint: str) -> dict[str, Any]:
    """Settings, models, seeds and text as JSON stores them; two comparisons with equal plans are the same."""
    settings = {name: value for name, value in config.to_dict().items() if name not in ("out", "model", "seed")}
    models = {name: dataclasses.asdict(model) for name, model in variants.items()}
    plan = {"settings": settings, "models": models, "seeds": list(seeds), "text": fingerprint}
    return dict(json.loads(json.dumps(plan)))


def comparison_folder(out: str, plan: dict[str, Any]) -> Path:
    """The folder of this comparison: `out`, or `out`-2, `out`-3 … where that is taken by anything else."""
    folder, number = Path(out), 1
    remove_drafts_of(folder)
    while os.path.lexists(folder):
        if os.path.lexists(folder / FILE) and Run(folder).read_json(FILE).get("plan") == plan:
            return folder
        number += 1
        folder = Path(f"{out}-{number}")
    with Run.building(out) as comparison:
        comparison.write_json(FILE, {"plan": plan})
    if number > 1:
        warn(f"{out} is taken by another comparison or something else, so this one goes to {comparison.path}.")
    return comparison.path


def trials_in(folder: Path, config: Config, variants: Variants, seeds: Sequence[int]) -> Trials:
    """Each variant with each seed, in a folder of its own."""
    trials = {}
    for seed in seeds:
        for name, model in variants.items():
            out = folder / f"{name.replace(' ', '-').replace('_', '-')}-seed-{seed}"
            trials[name, seed] = dataclasses.replace(config, out=str(out), seed=seed, model=model)
    return trials


def recorded_speeds(folder: Path, variants: Variants) -> Speeds | None:
    """The speeds that comparison.json keeps; None before they are measured."""
    content = Run(folder).fields(FILE)
    if "speeds" not in content:
        return None
    speeds: dict[str, dict[str, list[float]]] = {name: {} for name in variants}
    for name in variants:
        of_variant = content.inside("speeds", dict).inside(name, dict)
        for label in ("training", "decoding"):
            rounds = of_variant.inside(label, list, 1)
            speeds[name][label] = [rounds.number(place, 1e-9) for place in rounds]
    return speeds


def train_missing(trials: Trials) -> int:
    """Train every run that is not finished; 0, or the exit status of a run that stopped. Prints a line for each."""
    began, trained = time.monotonic(), 0
    missing = [trial for trial, config in trials.items() if not is_trained(config)]
    for number, ((name, seed), config) in enumerate(trials.items(), 1):
        label = f"{number}/{len(trials)} {name}, seed {seed}"
        if (name, seed) in missing:
            print(f"{label}: training", flush=True)
            status = train_trial(config)
            if status:
                return status
            trained += 1
        summary = read_summary(config)
        left = (time.monotonic() - began) / max(1, trained) * (len(missing) - trained)
        print(
            f"{label}: validation loss {summary.number('val_loss'):.3f}, "
            f"{summary.whole('tokens') / summary.number('seconds', 1e-9):,.0f} tokens/s"
            + (f", {left / 60:.0f} min left" if trained < len(missing) else ""),
            flush=True,
        )
    return 0


def is_trained(config: Config) -> bool:
    """Whether a run is finished: its summary.json is written last; raises UserError where that file is damaged."""
    is_there = os.path.lexists(Path(config.out) / SUMMARY)
    return is_there and read_summary(config).whole("steps") == config.train.steps


def train_trial(config: Config, prepare: Prepare = lambda model: None) -> int:
    """Train a run to its end, from its last checkpoint if it has one; the exit status.

    What training prints goes to training.log beside the run.
    """
    path = Path(config.out)
    if checkpoints.newest_whole(path)[0] is None:
        remove(path)  # killed before its first checkpoint
    try:
        with open_log(path.parent / "training.log") as log, contextlib.redirect_stdout(log):
            status = train(config, config.out if path.exists() else None, prepare)
    finally:
        forget_programs()
    if status:
        print(f"Stopped. The same command goes on with the comparison in {path.parent}.", file=sys.stderr)
    return status


def trial_result(variant: str, config: Config) -> TrialResult:
    """What a finished run reached, from its summary.json."""
    summary = read_summary(config)
    names = ("val_loss", "val_bits_per_byte", "cache_bytes_per_token")
    figures = {name: summary.number(name) for name in names}
    return TrialResult(variant, config.seed, Path(config.out).name, summary.whole("parameters", 1), **figures)


def read_summary(config: Config) -> Fields:
    """summary.json of a finished run; raises UserError where it is damaged, or of another run."""
    path = Path(config.out)
    summary = Run(path).fields(SUMMARY)
    newest = checkpoints.newest_state(path)
    expected = newest.progress.seconds if newest and newest.step == config.train.steps else summary.number("seconds")
    summary.expect(summary.number("seconds") == expected, "seconds", f"{expected}, as in the last checkpoint,")
    return summary


def time_variants(variants: Variants, config: Config, prepared: Prepared, runtime: Runtime) -> Speeds:
    """The speeds of every variant, uncompiled, with random weights: speed does not depend on them.

    Measured by turns, so that a busy minute of the machine slows all variants alike.
    """
    length, batch_size = config.model.context_length, config.train.batch_size
    share, dropout = ALONE.share(config.train), dropout_of(config.model)
    batches = Batches(prepared.train, length, batch_size, config.seed, runtime.device, share, dropout)
    new_tokens = max(2, length - 1)  # with the token that starts a document, a whole context
    calls: dict[str, dict[str, Candidate]] = {"training": {}, "decoding": {}}
    for name, settings in variants.items():
        model = Transformer(settings, prepared.tokenizer.vocab_size).to(runtime.device)
        optimizers = build_optimizers(model, config.train, runtime.dtype)
        set_learning_rate(optimizers, 0.0)
        calls["training"][name] = partial(
            train_step, training_loss(model), list(model.parameters()), optimizers, batches, runtime, config.train
        )
        calls["decoding"][name] = partial(decode_seconds, model, prepared.tokenizer.end_of_document, new_tokens)
    tokens = {"training": batch_size * config.train.grad_accum * length, "decoding": new_tokens - 1}
    speeds: dict[str, dict[str, list[float]]] = {name: {} for name in variants}
    for label, candidates in calls.items():
        timed = alternate(candidates, repeats=5, seconds=math.inf, device=runtime.device, label=label)
        for name, timing in timed.items():
            speeds[name][label] = [tokens[label] / seconds for seconds in timing.seconds]
    return speeds


def decode_seconds(model: Transformer, first_token: int, new_tokens: int) -> float:
    """Seconds that one sample takes from its second new token to its last."""
    steps = generate(model, [first_token], GenerateConfig(max_new_tokens=new_tokens), end_token=-1)
    next(steps)
    began = time.perf_counter()
    for _ in steps:
        pass
    return time.perf_counter() - began
