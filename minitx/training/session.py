"""A training run from configuration to finished run folder, new or resumed."""

import dataclasses
import os
import platform
import signal
from collections.abc import Callable
from contextlib import nullcontext
from operator import attrgetter
from pathlib import Path

import torch

import minitx
from minitx.config import Config
from minitx.config.parsing import setting_names
from minitx.data.prepare import Prepared
from minitx.data.stream import check_stream
from minitx.data.token_files import Tokens
from minitx.data.tokenizer import Tokenizer
from minitx.fast.compiler import spare_the_compiler
from minitx.model import Transformer
from minitx.model_size import require_memory
from minitx.run import checkpoints
from minitx.run.checkpoints import Checkpoint, Progress
from minitx.run.folder import Run
from minitx.run.logs import cut_logs
from minitx.run.text import prepared_text
from minitx.system.errors import UserError, require
from minitx.system.exits import sentence
from minitx.system.files import digest, remove, sha256
from minitx.system.program import command, launcher_has_gone
from minitx.system.runtime import Runtime, choose_runtime
from minitx.system.text import warn
from minitx.training.launch import joined
from minitx.training.loop import fit
from minitx.training.parallel import ALONE, Group
from minitx.training.start import start
from minitx.training.state import Training

Prepare = Callable[[Transformer], object]
"""Changes a model before its first step, and before it is resumed."""


def train(
    config: Config,
    resume: str | None = None,
    prepare: Prepare = lambda model: None,
    tokenizer: Tokenizer | None = None,
) -> int:
    """Train a new run, or resume the run folder `resume`; return 0, or 128 + the signal that stopped it.

    A new run learns a tokenizer of its own, unless one is given.
    """
    spare_the_compiler()
    with joined(config.parallel, config.device) as group:
        if config.data.streaming == "train":
            check_stream(config.data, group.share(config.train))
        group.check_divides(config.train)
        resume = resume or group.first(lambda: begun_before(config.out))
        runtime = choose_runtime(config.device, config.dtype, config.compile, config.threads, group.local_size)
        processes = f" · {group.size} processes" if group.size > 1 else ""
        print(runtime.describe() + processes, flush=True)
        copies = (group.local_size if runtime.device.type == "cpu" else 1) / (group.size if group.is_sharded else 1)
        vocab_size = config.tokenizer.vocab_size or 1
        rows = config.train.batch_size // group.size
        require_memory(config.model, vocab_size, runtime.device, training=True, copies=copies, rows=rows)
        config = dataclasses.replace(config, threads=runtime.threads, dtype=runtime.precision)
        return train_in(group, config, resume, runtime, prepare, tokenizer)


def train_in(
    group: Group,
    config: Config,
    resume: str | None,
    runtime: Runtime,
    prepare: Prepare,
    tokenizer: Tokenizer | None = None,
) -> int:
    """`train` by the processes of `group`, of which the first writes the run folder."""
    if resume is None:
        prepared = group.after_first(lambda: prepared_text(config, tokenizer=tokenizer))
        check_same(group, config, prepared)
        about = prepared.describe() | launcher()
        run = group.first(lambda: Run.create(config.out, config, prepared.tokenizer, about))
        with run.locked() if group.is_first else nullcontext():
            return fit_run(begin(config, run, prepared, runtime, prepare, group))
    run = Run.find(resume)
    before = run.config()
    why = f"so it has no optimizer state: train on from its weights with --init_from {run.path}"
    require(run.about("fingerprint") is not None, f"The run {run.path} was imported, {why}.")
    for key in setting_names(Config):
        section, setting = key.partition(".")[0], attrgetter(key)
        is_kept = section in ("init_from", "seed", "data", "tokenizer", "model") or key == "train.start"
        is_same = not is_kept or setting(before) == setting(config)
        name = key if section == "train" else f"{section} settings"
        require(is_same, f"A resumed run keeps its {name}: leave --{key} out, or start a new run.")
    with run.locked() if group.is_first else nullcontext():
        remedy = "resume where it is unchanged, or start a new run"
        prepared = group.after_first(lambda: prepared_text(config, run, remedy))
        check_same(group, config, prepared)
        checkpoint = group.first(lambda: newest(run, config.train.steps, before.train.steps))
        training = begin(config, run, prepared, runtime, prepare, group)
        if checkpoint is not None:
            training.restore(checkpoint)
        group.first(lambda: rewind(run, checkpoint))  # nothing in the folder has changed before
        group.first(lambda: run.save_config(dataclasses.replace(config, out=str(run.path))))
        return fit_run(training)


def check_same(group: Group, config: Config, prepared: Prepared) -> None:
    """Raise UserError where a process has other settings, code, versions or text than the first."""
    code = sorted(Path(minitx.__file__).parent.rglob("*.py")) if group.size > 1 else []
    settings = {**config.to_dict(), "threads": None, "dtype": config.dtype, "device": None}
    group.check_same(
        {
            "settings": digest(settings),
            "code": digest({str(i): sha256(file.read_bytes()) for i, file in enumerate(code)}),
            "version of torch": torch.__version__,
            "text": prepared.fingerprint + prepared.tokenizer.digest,
        }
    )


def launcher() -> dict[str, str]:
    """What names the launcher that started this process, for the processes that it starts again after a fault."""
    number = os.environ.get("TORCHELASTIC_RUN_ID")
    return {"launch": f"{number} {platform.node()} {os.getppid()}"} if number else {}


def begun_before(out: str) -> str | None:
    """The run that this launcher's processes began before a fault; None where they begin now."""
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) == 0:
        return None
    runs = [Run(config.parent) for config in Path(out).parent.glob(f"{Path(out).name}*/config.yaml")]
    return next((str(run.path) for run in runs if run.about("launch") == launcher()["launch"]), None)


def begin(
    config: Config, run: Run, prepared: Prepared, runtime: Runtime, prepare: Prepare, group: Group = ALONE
) -> Training:
    """A run at step 0."""
    model = untrained(config, prepared.tokenizer.vocab_size, prepared.train)
    if not group.is_sharded:  # which takes it part by part
        model.to(runtime.device)
    prepare(model)
    return Training(config, run, prepared, runtime, model, group)


def untrained(config: Config, vocab_size: int, tokens: Tokens) -> Transformer:
    """The model of a run at step 0, given its training text; seeds all random numbers."""
    torch.manual_seed(config.seed)
    model = Transformer(config.model, vocab_size)
    start(model, config.train.start, tokens)
    return model


def fit_run(training: Training) -> int:
    """Train, and say how to go on if that ends early; the exit status."""
    run = training.run
    resume = command_to_resume(run.path, training.group)
    training.group.way_on = f" Go on with: {resume}"
    print(f"run folder {run.path}", flush=True)
    try:
        stopped_by = fit(training)
    except BrokenPipeError:
        raise
    except OSError as error:
        names = checkpoints.names(run.path)
        left = f"The checkpoint {names[-1]} is whole." if names else "There was no checkpoint yet."
        raise UserError(f"{sentence(error)} {left} Go on with: {resume}") from error
    if stopped_by:
        reason = "torchrun has ended" if launcher_has_gone() else f"Stopped by {signal.Signals(stopped_by).name}"
        print(f"{reason}. Go on with: {resume}")
        return 128 + stopped_by
    return 0


def command_to_resume(path: Path, group: Group) -> str:
    """The command that goes on with a run, by as many processes as now."""
    program = command("train")
    if group.size > 1:
        machines = f" --nnodes {group.size // group.local_size} …" if group.size > group.local_size else ""
        script = program.removeprefix("python ") if program.startswith("python ") else f"-m {program}"
        program = f"torchrun --nproc_per_node {group.local_size}{machines} {script}"
    return f"{program} --resume {path}"


def newest(run: Run, steps: int, steps_before: int) -> Checkpoint | None:
    """The newest whole checkpoint of a run; None to begin again at step 0.

    Raises UserError where no checkpoint is whole, and where the run has already trained its `steps`; it was to train
    `steps_before`.
    """
    checkpoint, faults = checkpoints.newest_whole(run.path)
    for fault in faults:
        warn(fault)
    if checkpoint is None and faults:
        again = f"remove {run.path / checkpoints.FOLDER} to begin again at step 0"
        raise UserError(f"The run {run.path} has no whole checkpoint: restore one from a copy, or {again}.")
    progress = checkpoint.progress if checkpoint else Progress()
    step, is_measured = progress.step, progress.val_loss is not None or progress.unevaluated is not None
    is_whole = steps >= steps_before and is_measured and not os.path.lexists(run.path / "summary.json")
    is_finished = step == steps and not is_whole
    more = f"give more steps, as in --train.steps {2 * step}"
    require(step <= steps and not is_finished, f"The run {run.path} is finished at step {step}: to go on, {more}.")
    return checkpoint


def rewind(run: Run, checkpoint: Checkpoint | None) -> None:
    """Put the run folder back to `checkpoint`, or to step 0."""
    step, logs = (checkpoint.step, checkpoint.logs) if checkpoint else (0, {})
    cut_logs(run.path, logs, step)
    remove(run.path / "summary.json")
    print(f"going on from step {step}", flush=True)
