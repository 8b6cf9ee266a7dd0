"""`minitx compare`: train the same model with several head counts, or kinds of attention, once per seed.

All variants of a seed have the same data, order of batches and settings: differences are taken seed by seed. All seeds
have the same held-out documents.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from minitx.config import Config, GenerateConfig, ModelConfig
from minitx.data.batches import Batches
from minitx.data.prepare import Prepared, check_length, prepare
from minitx.fast.compiler import forget_programs
from minitx.generation.generate import generate
from minitx.model import Transformer, evaluating
from minitx.model_size import matrix_parameters
from minitx.run import checkpoints
from minitx.run.folder import Run, new_folder
from minitx.studies.comparison_report import Speeds, TrialResult, log_speeds, write_comparison
from minitx.system.errors import require
from minitx.system.runtime import Runtime, choose_runtime
from minitx.system.timing import alternate
from minitx.training.loop import train_step, training_loss
from minitx.training.optim import build_optimizers, set_learning_rate
from minitx.training.session import train

TIMING_ROUNDS = 5


@dataclass(frozen=True)
class Variant:
    """One of the models that are compared."""

    name: str
    model: ModelConfig


@dataclass(frozen=True)
class Trial:
    """One variant trained with one seed, and the folder of that run."""

    variant: Variant
    seed: int
    run: Run


def compare(config: Config, counts: list[int] | None, kinds: list[str] | None, n_seeds: int) -> int:
    """Train what is not trained yet, measure it, write and print the comparison; the exit status."""
    require(
        config.model.kept_heads is None, "model.kept_heads is set, but only whole models are compared: leave it out."
    )
    # Every seed holds out the same text. Samples are not compared, so none are written.
    data = dataclasses.replace(config.data, seed=config.seed if config.data.seed is None else config.data.seed)
    config = dataclasses.replace(config, data=data, train=dataclasses.replace(config.train, sample_every=0))
    variants = kind_variants(config.model, kinds or []) if counts is None else head_variants(config.model, counts)
    runtime = choose_runtime(config.device, config.dtype, config.compile, config.threads)
    print(runtime.describe(), flush=True)
    prepared = prepare(config.data, config.tokenizer, config.seed, progress=True)
    check_length(prepared, config.model.context_length)
    if counts is not None:
        check_equal_size(variants, prepared.tokenizer.vocab_size)

    seeds = range(config.seed, config.seed + n_seeds)
    plan = comparison_plan(config, variants, seeds, prepared.fingerprint)
    folder = comparison_folder(config.out, plan)
    print(f"comparison in {folder}", flush=True)
    trials = [Trial(variant, seed, Run(folder / folder_name(variant, seed))) for seed in seeds for variant in variants]
    status = train_missing(folder, config, trials)
    if status:
        return status
    if "runs" not in Run(folder).read_json("comparison.json"):
        print("timing training steps and decoding", flush=True)
        speeds = time_variants(variants, config, prepared, runtime)
        results = [trial_result(trial) for trial in sorted(trials, key=lambda trial: variants.index(trial.variant))]
        log_speeds(folder, results, speeds, config.train.steps + 1)
        title = (
            f"{len(variants)} models × {n_seeds} seed{'s' * (n_seeds > 1)}, {config.train.steps} steps of "
            f"{config.train.batch_size * config.train.grad_accum * config.model.context_length:,} tokens, "
            f"{runtime.device}"
        )
        write_comparison(folder, plan, results, speeds, title)
    print(f"\n{(folder / 'comparison.md').read_text('utf-8')}")
    print(
        f"Table, picture and figures are in {folder}/comparison.md, .png, .json. Next:\n  tensorboard --logdir {folder}"
    )
    return 0


# Which models


def head_variants(model: ModelConfig, counts: Sequence[int]) -> list[Variant]:
    """`model` with each number of heads."""
    return [Variant(f"{count} head{'s' * (count > 1)}", dataclasses.replace(model, n_head=count)) for count in counts]


def kind_variants(model: ModelConfig, kinds: Sequence[str]) -> list[Variant]:
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
    latent = {"attention": "latent", "d_latent": model.d_latent, "d_rotary": model.d_rotary}
    changes: dict[str, dict[str, Any]] = {
        "multi_head": {},
        "grouped_query": {"n_kv_head": grouped},
        "multi_query": {"n_kv_head": 1},
        "latent": latent,
    }
    return [Variant(kind, dataclasses.replace(plain, **changes[kind])) for kind in kinds]


def check_equal_size(variants: Sequence[Variant], vocab_size: int) -> None:
    """Raise `UserError` unless the matrices of all variants have the same number of parameters.

    The vectors of query-key norm may differ: they are as wide as a head.
    """
    sizes = {variant.name: matrix_parameters(variant.model, vocab_size) for variant in variants}
    require(
        len(set(sizes.values())) == 1,
        "The models are not of equal size, so their losses could not be compared ("
        + ", ".join(f"{name}: {size:,} parameters" for name, size in sizes.items())
        + "): leave model.n_kv_head and model.attention out.",
    )


# The folder of a comparison


def comparison_plan(
    config: Config, variants: Sequence[Variant], seeds: Sequence[int], fingerprint: str
) -> dict[str, Any]:
    """All that makes two comparisons the same, with the fingerprint of the text, as JSON stores it."""
    settings = {name: value for name, value in config.to_dict().items() if name not in ("out", "model", "seed")}
    models = {variant.name: dataclasses.asdict(variant.model) for variant in variants}
    plan = {"settings": settings, "models": models, "seeds": list(seeds), "text": fingerprint}
    return dict(json.loads(json.dumps(plan)))


def comparison_folder(out: str, plan: dict[str, Any]) -> Path:
    """The folder of this comparison: `out`, or `out`-2, `out`-3 … where that is taken by anything else."""
    number = 1
    while True:
        folder = Path(out if number == 1 else f"{out}-{number}")
        if not folder.exists():
            made = new_folder(str(folder))
            Run(made).write_json("comparison.json", {"plan": plan})
            return made
        if (folder / "comparison.json").is_file() and Run(folder).read_json("comparison.json").get("plan") == plan:
            return folder
        number += 1


def folder_name(variant: Variant, seed: int) -> str:
    """The run folder of a variant and a seed, in the folder of the comparison."""
    return f"{variant.name.replace(' ', '-').replace('_', '-')}-seed-{seed}"


# Training


def train_missing(folder: Path, config: Config, trials: Sequence[Trial]) -> int:
    """Train every run that is not finished, from its last checkpoint; 0, or the exit status of an interruption.

    What training prints goes to training.log; standard output gets a line for each run.
    """
    began, trained = time.monotonic(), 0
    missing = [trial for trial in trials if not is_trained(trial.run, config.train.steps)]
    for number, trial in enumerate(trials, 1):
        label = f"{number}/{len(trials)} {trial.variant.name}, seed {trial.seed}"
        if trial in missing:
            print(f"{label}: training", flush=True)
            with (folder / "training.log").open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
                status = train_trial(config, trial)
            if status:
                print(f"Stopped. The same command goes on with the comparison in {folder}.", file=sys.stderr)
                return status
            trained += 1
        summary = trial.run.read_json("summary.json")
        left = (time.monotonic() - began) / max(1, trained) * (len(missing) - trained)
        print(
            f"{label}: validation loss {summary['val_loss']:.3f}, "
            f"{summary['tokens'] / summary['seconds']:,.0f} tokens/s"
            + (f", {left / 60:.0f} min left" if trained < len(missing) else ""),
            flush=True,
        )
    return 0


def train_trial(config: Config, trial: Trial) -> int:
    """Train a run to its end, from its last checkpoint if it has one; the exit status."""
    path = trial.run.path
    if path.exists() and checkpoints.newest_whole(path)[0] is None:
        shutil.rmtree(path)  # killed before its first checkpoint
    config = dataclasses.replace(config, out=str(path), seed=trial.seed, model=trial.variant.model)
    try:
        return train(config, resume=str(path) if path.exists() else None)
    finally:
        forget_programs()


def is_trained(run: Run, steps: int) -> bool:
    """Whether a run is finished at step `steps`: its summary.json is written last.

    Raises UserError where that file is damaged.
    """
    return (run.path / "summary.json").exists() and bool(run.read_json("summary.json")["steps"] == steps)


# Measuring


def trial_result(trial: Trial) -> TrialResult:
    """What a finished run reached, from its summary.json."""
    summary = trial.run.read_json("summary.json")
    names = ("parameters", "val_loss", "val_bits_per_byte", "cache_bytes_per_token")
    return TrialResult(trial.variant.name, trial.seed, trial.run.path.name, **{name: summary[name] for name in names})


def time_variants(
    variants: Sequence[Variant], config: Config, prepared: Prepared, runtime: Runtime
) -> dict[str, Speeds]:
    """The speeds of every variant, not compiled and with untrained weights, which speed does not depend on.

    Measured by turns, so that a busy minute of the machine slows all variants alike.
    """
    length, batch_size = config.model.context_length, config.train.batch_size
    batches = Batches(prepared.train, length, batch_size, config.seed, runtime.device)
    new_tokens = max(2, length - 1)  # the context beside the token that starts a document
    steps, decodings = {}, {}
    for variant in variants:
        model = Transformer(variant.model, prepared.tokenizer.vocab_size).to(runtime.device)
        optimizers = build_optimizers(model, config.train)
        set_learning_rate(optimizers, 0.0)
        steps[variant.name] = partial(
            train_step, training_loss(model), list(model.parameters()), optimizers, batches, runtime, config.train
        )
        decodings[variant.name] = partial(decode_seconds, model, prepared.tokenizer.end_of_document, new_tokens)
    training, decoding = (
        alternate(calls, repeats=TIMING_ROUNDS, seconds=math.inf, device=runtime.device, label=label)
        for label, calls in (("training", steps), ("decoding", decodings))
    )
    step_tokens = batch_size * config.train.grad_accum * length
    return {
        name: Speeds(
            [step_tokens / seconds for seconds in training[name].seconds],
            [(new_tokens - 1) / seconds for seconds in decoding[name].seconds],
        )
        for name in steps
    }


def decode_seconds(model: Transformer, first_token: int, new_tokens: int) -> float:
    """Seconds that one sample takes from its second new token to its last."""
    with evaluating(model):
        steps = generate(model, [first_token], GenerateConfig(max_new_tokens=new_tokens), end_token=-1)
        next(steps)
        began = time.perf_counter()
        for _ in steps:
            pass
        return time.perf_counter() - began
