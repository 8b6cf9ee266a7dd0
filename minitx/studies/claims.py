"""`minitx claims`: train many small models on tales, measure them, and hold what is said of attention against them."""

import dataclasses

import torch

from minitx.config import Config
from minitx.run.text import prepared_text
from minitx.studies.claims_report import write_claims
from minitx.studies.claims_runs import TALES, claim_variants, finish, read_results
from minitx.studies.comparison import comparison_folder, comparison_plan, trials_in
from minitx.system.errors import require
from minitx.system.runtime import choose_runtime


def claims(config: Config, n_seeds: int, is_short: bool, command: str) -> int:
    """Train and measure what is missing, write and print the table of claims; the exit status.

    is_short: a quarter of the steps, a fifth of the tales, fewer models, at most 2 seeds.
    """
    require(config.data.source == "tales", f"data.source is {config.data.source}, but claims are tried on tales.")
    log = dataclasses.replace(config.log, heads_every=0, snapshots_every=0, examples=0)
    steps = max(1, config.train.steps // 4) if is_short else config.train.steps
    config = dataclasses.replace(config, log=log, train=dataclasses.replace(config.train, sample_every=0, steps=steps))
    variants = claim_variants(config.model, is_short)
    runtime = choose_runtime(config.device, config.dtype, config.compile, config.threads)
    print(runtime.describe(), flush=True)
    seeds = range(config.seed, config.seed + (min(n_seeds, 2) if is_short else n_seeds))
    plan = comparison_plan(config, variants, seeds, prepared_text(config).fingerprint)
    folder = comparison_folder(config.out, plan)
    trials = trials_in(folder, config, variants, seeds)
    status = finish(trials, config.model, TALES // 5 if is_short else TALES)
    if status:
        return status
    machine = f"torch {torch.__version__}, {runtime.describe()}"
    print(f"\n{write_claims(folder, config, read_results(trials), seeds, [machine, command])}")
    print(f"Table, picture and figures are in {folder}/claims.md, .png, .json.")
    return 0
