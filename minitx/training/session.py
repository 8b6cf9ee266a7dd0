"""A training run from configuration to finished run folder, new or resumed."""

import dataclasses
import signal

from minitx.config import Config
from minitx.data.prepare import Prepared
from minitx.fast.compiler import spare_the_compiler
from minitx.model_size import require_memory
from minitx.run import checkpoints
from minitx.run.checkpoints import Checkpoint
from minitx.run.folder import Run
from minitx.run.logs import cut_logs
from minitx.run.text import prepared_text
from minitx.system.errors import UserError, require
from minitx.system.exits import sentence
from minitx.system.files import remove
from minitx.system.runtime import Runtime, choose_runtime
from minitx.system.text import warn
from minitx.training.loop import fit


def train(config: Config, resume: str | None = None) -> int:
    """Train a new run, or resume the run folder `resume`; return 0, or 128 + the signal that stopped it."""
    spare_the_compiler()
    runtime = choose_runtime(config.device, config.dtype, config.compile, config.threads)
    print(runtime.describe(), flush=True)
    require_memory(config.model, config.tokenizer.vocab_size or 1, runtime.device, training=True)
    config = dataclasses.replace(config, threads=runtime.threads, dtype=runtime.precision)
    if resume is None:
        prepared = prepared_text(config)
        run = Run.create(config.out, config, prepared.tokenizer, prepared.describe())
        with run.locked():
            return fit_run(config, run, prepared, runtime, None)
    run = Run.find(resume)
    before = run.config()
    why = "it has no optimizer state. Generate from it, or prune it: the pruned run can be trained"
    require("fingerprint" in run.read_json("data.json"), f"The run {run.path} was imported, so {why}.")
    for name in ("seed", "data", "tokenizer", "model"):
        is_same = getattr(before, name) == getattr(config, name)
        require(is_same, f"A resumed run keeps its {name} settings: leave --{name} out, or start a new run.")
    with run.locked():
        prepared = prepared_text(config, run, "resume where it is unchanged, or start a new run")
        checkpoint = rewind(run, config.train.steps)
        run.save_config(dataclasses.replace(config, out=str(run.path)))
        return fit_run(config, run, prepared, runtime, checkpoint)


def fit_run(config: Config, run: Run, prepared: Prepared, runtime: Runtime, checkpoint: Checkpoint | None) -> int:
    """Train, and say how to go on if that ends early; the exit status."""
    print(f"run folder {run.path}", flush=True)
    try:
        stopped_by = fit(config, run, prepared, runtime, checkpoint)
    except BrokenPipeError:
        raise
    except OSError as error:
        names = checkpoints.names(run.path)
        left = f"The checkpoint {names[-1]} is whole." if names else "There was no checkpoint yet."
        raise UserError(f"{sentence(error)} {left} Go on with: python train.py --resume {run.path}") from error
    if stopped_by:
        print(f"Stopped by {signal.Signals(stopped_by).name}. Go on with: python train.py --resume {run.path}")
        return 128 + stopped_by
    return 0


def rewind(run: Run, steps: int) -> Checkpoint | None:
    """Put the run folder back to its newest whole checkpoint and return that; None to begin again at step 0.

    Raises UserError where no checkpoint is whole, and where the run has already trained its `steps`.
    """
    checkpoint, faults = checkpoints.newest_whole(run.path)
    for fault in faults:
        warn(fault)
    if checkpoint is None and faults:
        again = f"remove {run.path / checkpoints.FOLDER} to begin again at step 0"
        raise UserError(f"The run {run.path} has no whole checkpoint: restore one from a copy, or {again}.")
    step = checkpoint.step if checkpoint else 0
    if step > steps or (step == steps and (run.path / "summary.json").exists()):
        more = f"give more steps, as in --train.steps {2 * step}"
        raise UserError(f"The run {run.path} is finished at step {step}: to go on, {more}.")
    try:
        cut_logs(run.path, checkpoint.state["logs"] if checkpoint else {}, step)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"The last checkpoint of {run.path} was not written by minitx: it has no logs.") from error
    remove(run.path / "summary.json")
    print(f"going on from step {step}", flush=True)
    return checkpoint
