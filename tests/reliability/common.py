"""What every kind of harm needs: processes to harm, what runs say, the verbs, and the folder that they work in."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import io
import json
import logging
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from minitx.config import Config
from minitx.heads import examples_file, snapshots
from tests.small import small_config, small_text

ROOT = Path(__file__).parents[2]
MEASURED = ("seconds", "tokens_per_second")
"""Metrics that depend on the clock and so differ between runs."""
DRAFT = re.compile(r"\.(?!lock$).+|unfinished-.*|tmp.*")
"""Names that nobody takes for a finished result."""


# Processes


@dataclass
class Outcome:
    """The outcome of a command: exit status (negative for a signal), output, and the exception that it raised."""

    status: int | None
    out: str
    err: str
    fault: str = ""
    result: str = ""
    memory: int = 0
    """At its peak, in bytes."""

    @property
    def last(self) -> str:
        """The last line of standard error."""
        return self.err.strip().rpartition("\n")[2]


def environment(folder: Path, **more: str) -> dict[str, str]:
    """One thread, no GPU, and a cache beside the run."""
    cache = {"XDG_CACHE_HOME": str(folder / "cache"), "HF_HOME": str(folder / "hub"), "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **cache, **more}


def minitx(folder: Path, *arguments: str, before: str = "pass", **more: str) -> subprocess.CompletedProcess[str]:
    """Run train.py or generate.py in a new process in `folder`, after the line of Python `before`."""
    verb, *rest = arguments
    code = f"import sys; {before}; from minitx.__main__ import main; sys.exit(main())"
    command = [sys.executable, "-c", code, verb.removesuffix(".py"), *rest]
    env = environment(folder, **more)
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)


def in_process(arguments: list[str], seconds: int = 60) -> Outcome:
    """Run a command of minitx in this process, which is much quicker than a new one, for at most `seconds`."""
    from minitx.__main__ import main

    def hang(*_: object) -> None:
        raise TimeoutError(f"still going after {seconds} seconds")

    out, err = io.StringIO(), io.StringIO()
    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(seconds)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status: int | None = main(arguments)
        fault = ""
    except Exception as error:
        status, fault = None, f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    return Outcome(status, out.getvalue(), err.getvalue(), fault)


@contextlib.contextmanager
def working_in(folder: Path, **more: str) -> Iterator[None]:
    """Work in `folder`, with its `environment`."""
    before = dict(os.environ)
    os.environ.update(environment(folder, **more))
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def quickly(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The same as `minitx`, without harm, in this process."""
    verb, *rest = arguments
    with working_in(folder, **more):
        outcome = in_process([verb.removesuffix(".py"), *rest], seconds=120)
    status = 1 if outcome.status is None else outcome.status
    return subprocess.CompletedProcess(list(arguments), status, outcome.out, outcome.err + outcome.fault)


def forked(folder: Path, call: Callable[[], int], result: Callable[[str], Any], seconds: int = 60) -> Outcome:
    """Run `call` in `folder`, in a copy of this process, which may die, hang for `seconds`, or take 3 GB.

    The outcome's result is a checksum of `result`, a function of what was printed, if the exit status is 0.
    """
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if not child:
            status = 1
            try:
                signal.alarm(seconds)
                resource.setrlimit(resource.RLIMIT_AS, (size + (3 << 30),) * 2)
                for number, file in ((1, out), (2, err)):
                    os.dup2(file.fileno(), number)
                sys.stdout, sys.stderr = (open(n, "w", closefd=False) for n in (1, 2))  # noqa: SIM115
                setattr(snapshots, "time", SimpleNamespace(time=lambda: 0.0))  # noqa: B010  they hold the time
                with working_in(folder):
                    status = call()
                    sys.stdout.flush()
                    if status == 0:
                        told = result(os.pread(1, 1 << 24, 0).decode("utf-8", "replace"))
                        os.write(1, b"\0" + hashlib.sha256(repr(told).encode()).hexdigest().encode())
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        _, ended, usage = os.wait4(child, 0)
        printed, errors = (os.pread(file.fileno(), 1 << 24, 0).decode("utf-8", "replace") for file in (out, err))
    text, _, told = printed.rpartition("\0") if ended == 0 else (printed, "", "")
    return Outcome(os.waitstatus_to_exitcode(ended), text, errors, "", told, usage.ru_maxrss * 1024)


# What runs say, and whether two say the same


def metrics(run: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    """Every line of metrics without `MEASURED`; a damaged line is an error."""
    lines = [json.loads(line) for line in (run / name).read_text("utf-8").splitlines()]
    tables = [line if isinstance(line, dict) else {"no table": line} for line in lines]
    return [{name: value for name, value in line.items() if name not in MEASURED} for line in tables]


def curves(run: Path) -> dict[str, list[tuple[int, object]]]:
    """Every point of every curve, picture and text that TensorBoard's loader reads, without those of the clock."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    points: dict[str, list[tuple[int, object]]] = {}
    for tag in sorted(events.Tags()["scalars"]):
        if not tag.startswith("Speed/") and not tag.endswith((" in bytes", "/seconds")) and "per second" not in tag:
            points[tag] = [(event.step, event.value) for event in events.Scalars(tag)]
    for tag in sorted(events.Tags()["tensors"]):
        if tag == "Sample" or tag.startswith("“"):
            points[tag] = [(event.step, tuple(event.tensor_proto.string_val)) for event in events.Tensors(tag)]
    return points


def said(run: Path) -> dict[str, Any]:
    """What a run says to whoever goes on with it: metrics, lines about heads, last weights, and every curve."""
    last = max((run / "checkpoints").glob("step-*"))
    lines = {name: metrics(run, name) for name in ("metrics.jsonl", "heads.jsonl") if (run / name).exists()}
    return {**lines, last.name: (last / "model.safetensors").read_bytes(), **curves(run)}


def differences(run: Path, reference: Path) -> list[str]:
    """In what a run differs from the undisturbed run `reference`, the examples of its heads included."""
    ours, theirs = ({**said(one), **examples(one)} for one in (run, reference))
    return [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]


def examples(run: Path) -> dict[str, Any]:
    """The examples of heads at each step, without the name of the run."""
    return {f"examples {step}": examples_file.read(run, step)._replace(run="") for step in examples_file.steps(run)}


def holds(path: Path) -> Any:
    """What a file or folder holds, drafts left out; of a run or comparison what it says; None where nothing is."""
    try:
        if not path.is_dir():
            return path.read_bytes() if path.exists() else None
        if (path / "config.yaml").exists():
            config = (path / "config.yaml").read_text("utf-8").partition("out:")[2].partition("\n")[2]
            return [said(path), config, (path / "tokenizer.model").read_bytes()]
        if (path / "comparison.json").exists():
            whole = json.loads((path / "comparison.json").read_text("utf-8"))
            return [
                whole.get("plan"),
                whole.get("runs"),
                *(holds(run) for run in sorted(path.iterdir()) if run.is_dir()),
            ]
        there = [file for file in sorted(path.rglob("*")) if file.is_file() and file.name != ".lock"]
        files = {str(file.relative_to(path)): file for file in there}
        return {n: f.read_bytes() for n, f in files.items() if not any(map(DRAFT.fullmatch, n.split("/")))}
    except (OSError, ValueError) as error:
        return f"It cannot be read: {error}"


def plain(text: str) -> str:
    """What a command printed, without what depends on the clock, and without what `compare` trains meanwhile."""
    lines = [line for line in text.splitlines() if not re.search(r"per second|: training$|^timing", line)]
    clock = r"[\d,.]+ tokens/s|\d[\d,]* ± [\d,]+(?![\d.])|in [\d,]+ s;|, \d+ min left"
    return re.sub(clock, "", re.sub(r"[ -]+", " ", "\n".join(lines)))


# The verbs, and the folder that they work in


@dataclass(frozen=True)
class Verb:
    """A command. made: the file or folder that it writes; reads: what it may read; anew: what is removed before."""

    line: str | Callable[[], int]
    made: str = ""
    reads: tuple[str, ...] = ()
    anew: str = ""

    def __call__(self) -> int:
        from minitx.__main__ import main

        return main(shlex.split(self.line)) if isinstance(self.line, str) else self.line()


CACHE, RUN = "cache/minitx", ("runs/whole", "cache/minitx")
TEXT = "the cat sat on a mat."
HEADS, WALK = f"heads runs/whole --text '{TEXT}'", "walkthrough runs/whole --word cat --contexts 'the cat' 'rain, cat'"
PRUNE = "prune runs/whole --heads 0.1 --out runs/new"
COMPARE = "compare --config whole.yaml --train.steps 3 --train.eval_every 3 --log.heads_every 0 --log.snapshots_every 0"
COMPARE += " --heads 1,2 --seeds 1 --out"
VERBS = {
    "train": Verb("train --config whole.yaml --out runs/new", "runs/new", anew=CACHE),
    "train --resume": Verb("train --resume runs/whole --train.steps 10", "runs/whole", (*RUN, "text.txt")),
    "generate": Verb("generate runs/whole --prompt the --max_new_tokens 12", reads=RUN),
    "generate --attention": Verb("generate runs/whole --max_new_tokens 5 --attention page.html", "page.html", RUN),
    "heads": Verb("heads runs/whole --dtype float32", reads=(*RUN, "text.txt")),
    "heads --text": Verb(HEADS, reads=RUN),
    "heads --json": Verb(f"{HEADS} --json", reads=RUN),
    "heads --probes": Verb(f"{HEADS} --probes", reads=RUN),
    "heads --picture": Verb(f"{HEADS} --no_ablation --picture new.png", "new.png"),
    "heads --history": Verb("heads runs/whole --history new.png", "new.png", RUN),
    "heads --html": Verb("heads runs/whole --html page.html", "page.html", (*RUN, "text.txt")),
    "walkthrough": Verb(WALK, reads=RUN),
    "walkthrough --html": Verb(f"{WALK} --html page.html", "page.html", RUN),
    "prune": Verb(PRUNE, "runs/new", (*RUN, "text.txt")),
    "prune --finetune": Verb(f"{PRUNE} --finetune_steps 2", "runs/new"),
    "compare": Verb(f"{COMPARE} compare", "compare", anew="compare"),
    "compare again": Verb(f"{COMPARE} compare", reads=("compare", CACHE)),
    "export": Verb("export runs/whole new", "new", RUN),
    "import": Verb("import exported runs/new", "runs/new", ("exported",)),
    "data": Verb("data --config whole.yaml", reads=("text.txt", CACHE)),
    "data anew": Verb("data --config whole.yaml", CACHE, ("text.txt",), anew=CACHE),
    "data of rows": Verb("data --config whole.yaml --data.source rows.jsonl", reads=("rows.jsonl", CACHE)),
}


def written(folder: Path, config: Config, name: str) -> Path:
    """A YAML file of the configuration, which names runs/`name` as its folder."""
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({**config.to_dict(), "out": f"runs/{name}"}))
    return file


def build(folder: Path) -> None:
    """Fill `folder`/whole with finished runs, comparisons, exported folders and texts, for `afresh` to copy."""
    world = folder / "world"
    world.mkdir()
    config = small_config(world, steps=8, eval_every=4, checkpoint_every=4, sample_every=4)
    link: Any = {"text": TEXT, "links": [{"name": "link", "from": "sat", "to": "cat"}]}
    config = replace(config, log=replace(config.log, heads_every=4, snapshots_every=4, probes=["rain fell", link]))
    written(world, config, "whole")
    rows = (json.dumps({"text": line}) + "\n" for line in small_text(60).splitlines())
    (world / "rows.jsonl").write_text("".join(rows))
    lines = ["train --config whole.yaml", "train --config whole.yaml --out runs/twin --seed 7 --data.seed 1337"]
    lines += [f"{COMPARE} compare", f"{COMPARE} twins/compare --seed 7 --data.seed 1337"]
    lines += ["export runs/whole exported", "export runs/twin twins/exported"]
    lines += [str(verb.line) for verb in VERBS.values() if not verb.made]  # they import what children need
    with working_in(world):
        for line in lines:
            done = in_process(shlex.split(line))
            assert done.status == 0, (line, done)
    world.rename(folder / "whole")
    gc.freeze()  # so that children share its memory


def afresh(folder: Path, verb: Verb) -> Path:
    """The folder `world` as `build` left it, without what `verb` makes anew."""
    world = folder / "world"
    shutil.rmtree(world, ignore_errors=True)
    shutil.copytree(folder / "whole", world)
    if verb.anew:
        shutil.rmtree(world / verb.anew)
    return world
