"""`minitx compare`: train the same model with several head counts, or kinds of attention, and several seeds.

Takes every setting that training takes. The same command goes on with a comparison that was cut off, and shows the
result of one that is done. Models with different head counts have equally many parameters in their matrices, which is
checked; only the vectors of query-key norm, as wide as a head, differ (--model.qk_norm false takes them away).
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minitx.config.parsing import instantiate, new_parser, option_value, parse
from minitx.config.settings import Config, UserError, require

if TYPE_CHECKING:
    from minitx.studies.comparison import Variant

DEFAULT_HEADS = "1,2,4,8,16"
KINDS = ("multi_head", "grouped_query", "multi_query", "latent")


def main(arguments: Sequence[str], prog: str) -> int:
    """Compare as the command line says; the exit status."""
    parser = new_parser(prog, Config)
    parser.description = __doc__
    parser.add_argument(
        "--heads", metavar="LIST", help=f"Head counts to compare, with commas; without --kinds {DEFAULT_HEADS}."
    )
    parser.add_argument(
        "--kinds",
        metavar="LIST",
        help=f"Kinds of attention to compare, with commas: {', '.join(KINDS)}, or all.",
    )
    parser.add_argument("--seeds", type=int, default=3, help="How many seeds each is trained with, from seed upwards.")
    namespace = parse(parser, Config, arguments)
    heads, kinds, n_seeds = namespace.pop("heads"), namespace.pop("kinds"), namespace.pop("seeds")
    config = instantiate(parser, namespace, Config)
    require(heads is None or kinds is None, "Both --heads and --kinds are given: compare one after the other.")
    require(n_seeds >= 1, f"--seeds is {n_seeds}, but at least 1 is needed.")
    counts = None if kinds else head_counts(heads or DEFAULT_HEADS)
    chosen = None if kinds is None else kinds_named(kinds)
    if option_value(arguments, "--out") is None:
        config = dataclasses.replace(config, out=f"runs/compare-{'heads' if chosen is None else 'kinds'}")
    return compare(config, counts, chosen, n_seeds)


def head_counts(text: str) -> list[int]:
    """Such as 1,2,4 as numbers; raises UserError where they are none."""
    parts = [part.strip() for part in text.split(",")]
    good = all(part.isdecimal() and int(part) >= 1 for part in parts) and len({*parts}) == len(parts)
    require(good, f"--heads is {text!r}, but it takes head counts with commas, each once, such as {DEFAULT_HEADS}.")
    return [int(part) for part in parts]


def kinds_named(text: str) -> list[str]:
    """Such as multi_head,latent as a list; raises UserError where there is no such kind."""
    kinds = list(KINDS) if text == "all" else [part.strip() for part in text.split(",")]
    require(
        set(kinds) <= set(KINDS) and len(set(kinds)) == len(kinds),
        f"--kinds is {text!r}, but it takes some of {', '.join(KINDS)}, each once, or all.",
    )
    return kinds


def compare(config: Config, counts: list[int] | None, kinds: list[str] | None, n_seeds: int) -> int:
    """Train what is not trained yet, measure all and tell; the exit status."""
    from minitx.data.prepare import check_length, prepare
    from minitx.studies import comparison
    from minitx.system.runtime import decide

    require(
        config.model.kept_heads is None, "model.kept_heads is set, but only whole models are compared: leave it out."
    )
    seeds = range(config.seed, config.seed + n_seeds)
    # One share of the text is held out for all seeds, no sample is written: neither is compared.
    data = dataclasses.replace(config.data, seed=config.seed if config.data.seed is None else config.data.seed)
    config = dataclasses.replace(config, data=data, train=dataclasses.replace(config.train, sample_every=0))
    variants = (
        comparison.head_variants(config.model, counts)
        if counts is not None
        else comparison.kind_variants(config.model, kinds or [])
    )
    runtime = decide(config.device, config.dtype, config.compile, config.threads)
    print(runtime.describe(), flush=True)
    prepared = prepare(config.data, config.tokenizer, config.seed, progress=True)
    check_length(prepared, config.model.context_length)
    if counts is not None:
        comparison.check_equal_size(variants, prepared.tokenizer.vocab_size)

    plan = comparison.planned(config, variants, seeds, prepared.fingerprint)
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
        speeds = comparison.time_variants(variants, config, prepared, runtime)
        measured = comparison.results(folder, sorted(runs, key=lambda run: variants.index(run[0])))
        comparison.tell_board(folder, measured, comparison.summarise(measured, speeds), config.train.steps)
        comparison.write(folder, plan, measured, speeds, title)
    print(f"\n{(folder / 'comparison.md').read_text('utf-8')}")
    print(
        f"Table, picture and figures are in {folder}/comparison.md, .png, .json. Next:\n  tensorboard --logdir {folder}"
    )
    return 0


def comparison_folder(out: str, plan: dict[str, Any]) -> Path:
    """The folder of this comparison: `out`, or `out`-2, `out`-3 … where that is taken by anything else."""
    from minitx.run.folder import Run

    number = 1
    while True:
        folder = Path(out if number == 1 else f"{out}-{number}")
        if not folder.exists():
            made = Run.create(str(folder))
            made.write_json("comparison.json", {"plan": plan})
            return made.path
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
    from minitx.commands.train import train
    from minitx.run.folder import Run
    from minitx.system.runtime import forget_programs

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
