"""`train.py`: prepare the text, train, and say what to do next."""

from __future__ import annotations

import dataclasses
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from minitx.cli import parse_train
from minitx.config import Config, require

if TYPE_CHECKING:
    from minitx.run import Checkpoint, Run

FIXED_ON_RESUME = ("seed", "data", "tokenizer", "model")
"""Settings that a resumed run cannot change and still be the same run."""


def main(arguments: Sequence[str] | None = None, prog: str = "train.py") -> int:
    """Train as the command line says; the exit status."""
    config, resume = parse_train(sys.argv[1:] if arguments is None else arguments, prog)
    return train(config, resume)


def train(config: Config, resume: str | None = None) -> int:
    """Train a new run, or go on with the run folder `resume`; the exit status: 0, or 128 + the signal that ended it."""
    from minitx.data import check_length, prepare
    from minitx.run import Run
    from minitx.runtime import decide
    from minitx.training import fit

    runtime = decide(config.device, config.dtype, config.compile, config.threads)
    print(runtime.describe(), flush=True)
    config = dataclasses.replace(
        config, threads=runtime.threads, dtype="bfloat16" if "bfloat16" in str(runtime.dtype) else "float32"
    )
    run = Run.find(resume) if resume else None
    if run is not None:
        check_unchanged(run.config(), config)
    prepared = prepare(
        config.data, config.tokenizer, config.seed, progress=True, tokenizer_model=run.tokenizer() if run else None
    )
    check_length(prepared, config.model.context_length)
    if run is None:
        run, checkpoint = Run.create(config.out), None
        prepared.tokenizer.save(run.path / "tokenizer.model")
        run.write_json("data.json", prepared.describe())
    else:
        checkpoint = resumed_checkpoint(run, prepared.fingerprint, config.train.steps)
    run.save_config(dataclasses.replace(config, out=str(run.path)))
    print(f"run folder {run.path}", flush=True)

    stopped_by = fit(config, run, prepared, runtime, checkpoint)
    if stopped_by:
        print(f"Stopped by {signal.Signals(stopped_by).name}. Go on with: python train.py --resume {run.path}")
        return 128 + stopped_by
    return 0


def check_unchanged(before: Config, now: Config) -> None:
    """Raise `UserError` where a resumed run would not be the same run."""
    for name in FIXED_ON_RESUME:
        require(
            getattr(before, name) == getattr(now, name),
            f"A resumed run keeps its {name} settings: leave --{name} out, or start a new run.",
        )


def resumed_checkpoint(run: Run, fingerprint: str, steps: int) -> Checkpoint | None:
    """The newest whole checkpoint of `run`, its metrics cut back to it; None to begin again where there is none.

    Raises UserError when the text is another one now, or when nothing is left to do.
    """
    from minitx.run import HEADS_FILE

    require(
        run.read_json("data.json")["fingerprint"] == fingerprint,
        f"The text that {run.path} learned from has changed since: resume where it is unchanged, or start a new run.",
    )
    checkpoint, faults = run.newest_whole_checkpoint()
    for fault in faults:
        print(f"warning: {fault}", file=sys.stderr)
    step = checkpoint.step if checkpoint else 0
    require(
        step < steps,
        f"The run {run.path} is finished at step {step}: to go on, give more steps, as in --train.steps {2 * steps}.",
    )
    run.cut_metrics(step)
    run.cut_metrics(step, HEADS_FILE)
    print(f"going on from step {step}", flush=True)
    return checkpoint
