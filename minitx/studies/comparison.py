"""Compare kinds of attention by training each: which models, what was measured of them, as table and picture.

`minitx compare` trains every variant once for each seed. Data, order of batches and settings are the same for all
variants of a seed, so that differences are taken seed by seed; held-out documents are the same for all seeds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minitx.config import Config, GenerateConfig, ModelConfig
from minitx.data.batches import Batches
from minitx.data.prepare import Prepared
from minitx.generation.generate import generate
from minitx.model import Transformer, evaluating
from minitx.run.folder import Run
from minitx.studies.comparison_report import Measured, Speed, summarise, tell_board, write
from minitx.system.errors import UserError, require
from minitx.system.runtime import Runtime
from minitx.training.loop import train_step, training_loss
from minitx.training.optim import build_optimizers, set_learning_rate

TIMING_ROUNDS = 5


@dataclass(frozen=True)
class Variant:
    """One of the models that are compared."""

    name: str
    model: ModelConfig

    @property
    def folder(self) -> str:
        """Its name as the beginning of a folder's name."""
        return self.name.replace(" ", "-").replace("_", "-")


def head_variants(model: ModelConfig, counts: Sequence[int]) -> list[Variant]:
    """`model` with each number of heads."""
    return [Variant(f"{count} head{'s' * (count > 1)}", dataclasses.replace(model, n_head=count)) for count in counts]


def kind_variants(model: ModelConfig, kinds: Sequence[str]) -> list[Variant]:
    """`model` with each of the kinds multi_head, grouped_query (its n_kv_head, or the most below n_head), multi_query
    and latent.

    Raises UserError where there is no number of groups between 1 and n_head.
    """
    between = [n for n in range(2, model.n_head) if model.n_head % n == 0]
    grouped = model.n_kv_head if model.n_kv_head in between else max(between, default=None)
    require(
        grouped is not None or "grouped_query" not in kinds,
        f"model.n_head is {model.n_head}, which nothing between it and 1 divides: leave grouped_query out, or take 4.",
    )
    changes: dict[str, dict[str, Any]] = {
        "multi_head": {"n_kv_head": None},
        "grouped_query": {"n_kv_head": grouped},
        "multi_query": {"n_kv_head": 1},
        "latent": {"n_kv_head": None, "attention": "latent", "d_latent": model.d_latent, "d_rotary": model.d_rotary},
    }
    plain: dict[str, Any] = {"attention": "multi_head", "d_latent": None, "d_rotary": None}
    return [Variant(kind, dataclasses.replace(model, **{**plain, **changes[kind]})) for kind in kinds]


def matrix_parameters(model: ModelConfig, vocab_size: int) -> int:
    """Parameters of all matrices. The vectors of query-key norm are left out: they are as wide as a head."""
    with torch.device("meta"):
        return sum(p.numel() for p in Transformer(model, vocab_size).parameters() if p.dim() == 2)


def check_equal_size(variants: Sequence[Variant], vocab_size: int) -> None:
    """Raise `UserError` unless the matrices of all variants have the same number of parameters."""
    sizes = {variant.name: matrix_parameters(variant.model, vocab_size) for variant in variants}
    require(
        len(set(sizes.values())) == 1,
        "The models are not of equal size, so their losses could not be compared ("
        + ", ".join(f"{name}: {size:,} parameters" for name, size in sizes.items())
        + "): leave model.n_kv_head and model.attention out.",
    )


# Measuring


def results(folder: Path, runs: Sequence[tuple[Variant, int, str]]) -> list[Measured]:
    """What the trained runs, (variant, seed, name in `folder`), came to."""
    found = []
    for variant, seed, name in runs:
        run = Run(folder / name)
        model, _ = run.load_model("last", torch.device("cpu"))
        last = run.metrics()[-1]
        found.append(
            Measured(
                variant=variant.name,
                seed=seed,
                folder=name,
                parameters=sum(p.numel() for p in model.parameters()),
                val_loss=last["val_loss"],
                val_bits_per_byte=last["val_bits_per_byte"],
                cache_bytes_per_token=sum(layer.nbytes for layer in model.new_cache(1)) / model.config.context_length,
            )
        )
    return found


def time_variants(
    variants: Sequence[Variant], config: Config, prepared: Prepared, runtime: Runtime
) -> dict[str, Speed]:
    """The speed of each variant, not compiled and with untrained weights, which do not matter for it.

    In rounds in which all take turns, so that a busy minute of the machine meets them alike; the first is not counted.
    """
    speeds = {variant.name: Speed([], []) for variant in variants}
    end = prepared.tokenizer.end_of_document
    models = [Transformer(variant.model, prepared.tokenizer.vocab_size).to(runtime.device) for variant in variants]
    optimizers = [build_optimizers(model, config.train) for model in models]
    for own in optimizers:
        set_learning_rate(own, 0.0)
    batches = Batches(prepared.train, config.model.context_length, config.train.batch_size, config.seed, runtime.device)
    tokens = config.train.batch_size * config.train.grad_accum * config.model.context_length
    for timing_round in range(TIMING_ROUNDS + 1):
        for variant, model, own in zip(variants, models, optimizers, strict=True):
            began = time.perf_counter()
            loss, _ = train_step(training_loss(model), list(model.parameters()), own, batches, runtime, config.train)
            loss.item()  # waits for a GPU
            training = tokens / (time.perf_counter() - began)
            with evaluating(model):
                decoding = decode_speed(model, end)
            if timing_round > 0:
                speeds[variant.name].training.append(training)
                speeds[variant.name].decoding.append(decoding)
    return speeds


def decode_speed(model: Transformer, end_of_document: int) -> float:
    """Tokens per second of one sample in the context of a model in eval mode, from the second new token on."""
    options = GenerateConfig(max_new_tokens=max(2, model.config.context_length - 1))
    steps = generate(model, [end_of_document], options, end_token=-1)
    next(steps)
    began = time.perf_counter()
    count = sum(1 for _ in steps)
    return count / (time.perf_counter() - began)


# Telling


def planned(config: Config, variants: Sequence[Variant], seeds: Sequence[int], fingerprint: str) -> dict[str, Any]:
    """What makes two comparisons the same one, the fingerprint of the text included, as JSON holds it."""
    settings = {name: value for name, value in config.to_dict().items() if name not in ("out", "model", "seed")}
    models = {variant.name: dataclasses.asdict(variant.model) for variant in variants}
    plan = {"settings": settings, "models": models, "seeds": list(seeds), "text": fingerprint}
    return dict(json.loads(json.dumps(plan)))


def compare(config: Config, counts: list[int] | None, kinds: list[str] | None, n_seeds: int) -> int:
    """Train what is not trained yet, measure all and tell; the exit status."""
    from minitx.data.prepare import check_length, prepare
    from minitx.system.runtime import choose_runtime

    require(
        config.model.kept_heads is None, "model.kept_heads is set, but only whole models are compared: leave it out."
    )
    seeds = range(config.seed, config.seed + n_seeds)
    # One share of the text is held out for all seeds, no sample is written: neither is compared.
    data = dataclasses.replace(config.data, seed=config.seed if config.data.seed is None else config.data.seed)
    config = dataclasses.replace(config, data=data, train=dataclasses.replace(config.train, sample_every=0))
    variants = head_variants(config.model, counts) if counts is not None else kind_variants(config.model, kinds or [])
    runtime = choose_runtime(config.device, config.dtype, config.compile, config.threads)
    print(runtime.describe(), flush=True)
    prepared = prepare(config.data, config.tokenizer, config.seed, progress=True)
    check_length(prepared, config.model.context_length)
    if counts is not None:
        check_equal_size(variants, prepared.tokenizer.vocab_size)

    plan = planned(config, variants, seeds, prepared.fingerprint)
    folder = comparison_folder(config.out, plan)
    print(f"comparison in {folder}", flush=True)
    runs = [(variant, seed, f"{variant.folder}-seed-{seed}") for seed in seeds for variant in variants]
    status = train_missing(folder, config, runs)
    if status:
        return status
    title = (
        f"{len(variants)} models × {len(seeds)} seeds, {config.train.steps} steps of "
        f"{config.train.batch_size * config.train.grad_accum * config.model.context_length:,} tokens, {runtime.device}"
    )
    if "runs" not in read_comparison(folder):
        print("timing training steps and decoding", flush=True)
        speeds = time_variants(variants, config, prepared, runtime)
        measured = results(folder, sorted(runs, key=lambda run: variants.index(run[0])))
        tell_board(folder, measured, summarise(measured, speeds), config.train.steps)
        write(folder, plan, measured, speeds, title)
    print(f"\n{(folder / 'comparison.md').read_text('utf-8')}")
    print(
        f"Table, picture and figures are in {folder}/comparison.md, .png, .json. Next:\n  tensorboard --logdir {folder}"
    )
    return 0


def comparison_folder(out: str, plan: dict[str, Any]) -> Path:
    """The folder of this comparison: `out`, or `out`-2, `out`-3 … where that is taken by anything else."""
    from minitx.run.folder import Run, new_folder

    number = 1
    while True:
        folder = Path(out if number == 1 else f"{out}-{number}")
        if not folder.exists():
            made = new_folder(str(folder))
            Run(made).write_json("comparison.json", {"plan": plan})
            return made
        if (folder / "comparison.json").is_file() and read_comparison(folder).get("plan") == plan:
            return folder
        number += 1


def read_comparison(folder: Path) -> dict[str, Any]:
    """What comparison.json holds."""
    from minitx.run.folder import Run

    return Run(folder).read_json("comparison.json")


def train_missing(folder: Path, config: Config, runs: Sequence[tuple[Variant, int, str]]) -> int:
    """Train every run that is not finished, from its last checkpoint; 0, or the exit status of an interruption.

    What training prints goes to training.log; standard output gets a line for each run.
    """
    began, trained = time.monotonic(), 0
    missing = [name for _, _, name in runs if not is_trained(folder / name, config.train.steps)]
    for number, (variant, seed, name) in enumerate(runs, 1):
        if name in missing:
            wanted = dataclasses.replace(config, out=str(folder / name), seed=seed, model=variant.model)
            print(f"{number}/{len(runs)} {variant.name}, seed {seed}: training", flush=True)
            with (folder / "training.log").open("a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
                status = train_one(wanted)
            if status:
                print(f"Stopped. The same command goes on with the comparison in {folder}.", file=sys.stderr)
                return status
            trained += 1
        left = (time.monotonic() - began) / max(1, trained) * (len(missing) - trained)
        more = f", {left / 60:.0f} min left" if trained < len(missing) else ""
        print(f"{number}/{len(runs)} {variant.name}, seed {seed}: {result(folder / name)}{more}", flush=True)
    return 0


def train_one(config: Config) -> int:
    """Train a run to its end, going on where there is a checkpoint; the exit status."""
    from minitx.fast.compiler import forget_programs
    from minitx.run.folder import Run
    from minitx.training.session import train

    path = Path(config.out)
    if path.exists() and Run(path).newest_whole_checkpoint()[0] is None:
        shutil.rmtree(path)  # killed before its first checkpoint
    try:
        return train(config, resume=str(path) if path.exists() else None)
    finally:
        forget_programs()


def is_trained(path: Path, steps: int) -> bool:
    """Whether the run at `path` has reached its last step, checkpoint and metrics."""
    from minitx.run.folder import Run

    try:
        return Run(path).checkpoint("last").step == steps and Run(path).metrics()[-1]["step"] == steps
    except UserError:
        return False


def result(path: Path) -> str:
    """What a finished run came to, in words."""
    from minitx.run.folder import Run

    last = Run(path).metrics()[-1]
    return f"validation loss {last['val_loss']:.3f}, {last['tokens'] / last['seconds']:,.0f} tokens/s"
