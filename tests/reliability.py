"""Harm done to runs: `python -m tests.reliability kills | damage | disk | long`.

Kills runs, damages their files, fills their disk, resumes them, and compares them bit for bit with an undisturbed run.
The test suite does a little of each harm. The figures in docs/reliability.md come from these commands.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import http.server
import io
import json
import logging
import os
import random
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from minitx.config import Config
from tests.small import small_config, small_text

ROOT = Path(__file__).parents[1]
MEASURED = ("seconds", "tokens_per_second")
"""Metrics that depend on the clock and so differ between runs."""


# What runs, and how


def environment(folder: Path, **more: str) -> dict[str, str]:
    """One thread, and a cache beside the run."""
    cache = {"XDG_CACHE_HOME": str(folder / "cache"), "HF_HOME": str(folder / "hub")}
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **cache, **more}


def minitx(folder: Path, *arguments: str, harm: str = "none", **more: str) -> subprocess.CompletedProcess[str]:
    """Run train.py or generate.py in a new process in `folder`, killed as `harm` says (see `child`)."""
    return subprocess.run(
        [sys.executable, "-m", "tests.reliability", "child", harm, *arguments],
        cwd=folder,
        env=environment(folder, **more),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def quickly(folder: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The same without harm, in this process, which is quicker."""
    verb, *rest = arguments
    before, here = dict(os.environ), Path.cwd()
    os.environ.update(environment(folder, **more))
    os.chdir(folder)
    try:
        outcome = in_process([verb.removesuffix(".py"), *rest], seconds=120)
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)
    status = 1 if outcome.status is None else outcome.status
    return subprocess.CompletedProcess(list(arguments), status, outcome.out, outcome.err + outcome.fault)


def child(harm: str, script: str, arguments: list[str]) -> None:
    """Run a script of minitx; `harm` is none, or KIND:N: kill this process with SIGKILL before its N-th

    - write: file operation in a run folder (open, rename, remove, make a folder), whichever it is,
    - evaluation: batch of an evaluation,
    - step: training step,
    - time: N seconds after training began,
    or limit every file to N bytes (size:N).
    """
    kind, _, number = harm.partition(":")
    left = [float(number or 0)]

    def count(*_: object, **__: object) -> None:
        left[0] -= 1
        if left[0] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    if kind == "write":

        def hook(event: str, details: tuple[object, ...]) -> None:
            names = [str(detail) for detail in details if isinstance(detail, str | os.PathLike)]
            if event in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir") and any("runs" in n for n in names):
                reads = event == "open" and not (isinstance(details[2], int) and details[2] & (os.O_WRONLY | os.O_RDWR))
                if not reads:
                    count()

        sys.addaudithook(hook)
    elif kind == "size":
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(left[0]), int(left[0])))
    elif kind != "none":
        import minitx.training.loop as training

        if kind == "time":
            original = training.fit

            def end() -> None:
                time.sleep(left[0])
                os.kill(os.getpid(), signal.SIGKILL)

            def timed(*arguments: Any) -> Any:
                threading.Thread(target=end, daemon=True).start()
                return original(*arguments)

            setattr(training, "fit", timed)  # noqa: B010  mypy would have the very same signature
        else:
            name = {"evaluation": "validation_windows", "step": "train_step"}[kind]
            function = getattr(training, name)

            def counting(batches: Any) -> Any:
                for batch in batches:
                    count()
                    yield batch

            def counted(*arguments: Any) -> Any:
                if kind == "step":
                    count()
                    return function(*arguments)
                return counting(function(*arguments))

            setattr(training, name, counted)
    sys.argv = [script, *arguments]
    runpy.run_path(str(ROOT / script), run_name="__main__")


def written(folder: Path, config: Config, name: str) -> Path:
    """A YAML file of the configuration, which names runs/`name` as its folder."""
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump({**config.to_dict(), "out": f"runs/{name}"}))
    return file


# What a run says, and whether two say the same


def metrics(run: Path) -> list[dict[str, Any]]:
    """Every line of metrics without `MEASURED`; a damaged line is an error."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name not in MEASURED} for line in lines]


def curves(run: Path) -> dict[str, list[tuple[int, object]]]:
    """Every point of every curve, picture and text that TensorBoard's loader reads, without those of the clock."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    points: dict[str, list[tuple[int, object]]] = {}
    for tag in events.Tags()["scalars"]:
        if not tag.startswith("Speed/") and tag != "Result/seconds":
            points[tag] = [(event.step, event.value) for event in events.Scalars(tag)]
    for tag in events.Tags()["tensors"]:
        if tag == "Sample" or tag.startswith("probe"):
            points[tag] = [(event.step, tuple(event.tensor_proto.string_val)) for event in events.Tensors(tag)]
    return points


def differences(run: Path, reference: Path) -> list[str]:
    """In what a run differs from the undisturbed run `reference`."""
    unequal = []
    ours, theirs = metrics(run), metrics(reference)
    if [line["step"] for line in ours] != [line["step"] for line in theirs]:
        unequal.append(f"steps in metrics.jsonl: {[line['step'] for line in ours]}")
    elif ours != theirs:
        unequal.append(f"metrics from step {next(a['step'] for a, b in zip(ours, theirs, strict=True) if a != b)} on")
    our_curves, their_curves = curves(run), curves(reference)
    for tag in our_curves.keys() | their_curves.keys():
        if our_curves.get(tag) != their_curves.get(tag):
            unequal.append(f"TensorBoard's {tag}")
    for name in ("model.safetensors",):
        last = max((run / "checkpoints").glob("step-*"))
        if (last / name).read_bytes() != (reference / "checkpoints" / last.name / name).read_bytes():
            unequal.append(name)
    return unequal


# Kills


def variants(folder: Path) -> dict[str, Config]:
    """The configurations that are trained and killed."""
    base = small_config(folder, steps=24, eval_every=8, checkpoint_every=5, sample_every=8)
    base = dataclasses.replace(base, log=dataclasses.replace(base.log, heads_every=8))
    dropout = dataclasses.replace(base.model, dropout=0.2)
    adamw = dataclasses.replace(base.train, optimizer="adamw", grad_accum=2)
    streamed = dataclasses.replace(base.data, source="me/tiny", streaming=True)
    return {
        "muon": dataclasses.replace(base, model=dropout),
        "adamw": dataclasses.replace(base, model=dropout, train=adamw),
        "streamed": dataclasses.replace(base, data=streamed),
    }


@contextlib.contextmanager
def hub(folder: Path) -> Iterator[str]:
    """A server with the data set me/tiny; its address."""
    from tests.data.test_hub import CARD, Hub
    from tests.data.test_sources import write

    rows = small_text().splitlines(keepends=True)
    Hub.files = {
        "README.md": CARD.encode(),
        "data/train.parquet": write(folder / "train.parquet", rows).read_bytes(),
        "data/test.parquet": write(folder / "test.parquet", rows[:9]).read_bytes(),
    }
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


KINDS = {"write": (1, 90), "evaluation": (1, 60), "step": (1, 24), "time": (0, 2)}
"""What a kill waits for, and the range of its random number."""


def kills(folder: Path, count: int, seed: int, names: list[str] | None = None) -> Counter[str]:
    """Kill runs at `count` random moments in all, and resume every run to its end; counts of the outcomes."""
    random_ = random.Random(seed)
    chosen = {name: config for name, config in variants(folder).items() if names is None or name in names}
    with hub(folder) as address:
        online = {"HF_ENDPOINT": address, "NO_PROXY": "*"}
        for name, config in chosen.items():
            written(folder, config, name)
            made = minitx(folder, "train.py", "--config", f"{name}.yaml", **(online if name == "streamed" else {}))
            assert made.returncode == 0, made.stderr
        return _kills(folder, count, random_, list(chosen), online)


def _kills(folder: Path, count: int, random_: random.Random, names: list[str], online: dict[str, str]) -> Counter[str]:
    done: Counter[str] = Counter(dict.fromkeys(("kills", "runs", "divergent", "unresumable"), 0))
    number = 0
    while done["kills"] < count:
        name = names[number % len(names)]
        number += 1
        run = folder / "runs" / f"{name}-killed-{number}"
        for _ in range(random_.randint(1, 4)):
            harm = "none"
            if done["kills"] < count:
                kind = random_.choice(list(KINDS))
                low, high = KINDS[kind]
                harm = (
                    f"{kind}:{random_.uniform(low, high):.2f}"
                    if kind == "time"
                    else f"{kind}:{random_.randint(low, high)}"
                )
            ended = go_on(folder, run, name, harm, online if name == "streamed" else {})
            if ended.returncode == -signal.SIGKILL:
                done["kills"] += 1
                done[f"killed by {harm.split(':')[0]}{' in a resumed run' if '--resume' in ended.args else ''}"] += 1
            elif ended.returncode == 0:
                break
            else:
                done["unresumable"] += 1
                print(f"unresumable: {run.name} {harm}: {ended.stdout[-300:]}{ended.stderr[-1500:]}")
                break
        else:
            ended = go_on(folder, run, name, "none", online if name == "streamed" else {})
        done["runs"] += 1
        if ended.returncode != 0:
            done["unresumable"] += ended.returncode != -signal.SIGKILL
            print(f"unresumable: {run.name}: {ended.stderr[-1500:]}")
            continue
        unequal = differences(run, folder / "runs" / name)
        done["divergent"] += bool(unequal)
        if unequal:
            print(f"divergent: {run.name}: {'; '.join(unequal)}")
        left = [path.name for path in run.rglob(".*")]
        if left:
            done["drafts left"] += 1
            print(f"drafts left: {left}")
        print(f"{run.name}: {dict(done)}", flush=True)
    return done


def go_on(folder: Path, run: Path, name: str, harm: str, more: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Resume a run, or begin it again if it was killed before it had a config.yaml."""
    if (run / "config.yaml").exists():
        summary = run / "summary.json"
        if summary.exists():  # finished at the very moment it was killed
            return subprocess.CompletedProcess([], 0, "", "")
        if more:
            more = {**more, "HF_HUB_OFFLINE": "1"}  # the Hub is gone: a resumed run does without it
        elif harm == "none":
            return quickly(folder, "train.py", "--resume", f"runs/{run.name}")
        return minitx(folder, "train.py", "--resume", f"runs/{run.name}", harm=harm, **more)
    shutil.rmtree(run, ignore_errors=True)  # so that the next one has its name
    return minitx(folder, "train.py", "--config", f"{name}.yaml", "--out", f"runs/{run.name}", harm=harm, **more)


# Damage


@dataclasses.dataclass
class Outcome:
    """The outcome of a command: exit status, output, and the exception that it raised, if any."""

    status: int | None
    out: str
    err: str
    fault: str = ""


def in_process(arguments: list[str], seconds: int = 60) -> Outcome:
    """Run a command of minitx in this process, which is much quicker than a new one, for at most `seconds`."""
    from minitx.__main__ import main

    def hang(*_: object) -> None:
        raise TimeoutError(f"still going after {seconds} seconds")

    out, err = io.StringIO(), io.StringIO()
    signal.signal(signal.SIGALRM, hang)
    signal.alarm(seconds)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status: int | None = main(arguments)
        fault = ""
    except Exception as error:
        status, fault = None, f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    return Outcome(status, out.getvalue(), err.getvalue(), fault)


def damage(folder: Path, count: int, seed: int) -> Counter[str]:
    """Damage a file of a finished run `count` times, and generate and resume each time; counts of the outcomes."""
    random_ = random.Random(seed)
    config = small_config(folder, steps=8, eval_every=4, checkpoint_every=4, sample_every=4)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    written(folder, config, "whole")
    here = Path.cwd()
    os.chdir(folder)
    try:
        made = in_process(["train", "--config", "whole.yaml"])
        assert made.status == 0, made
        return _damage(folder, count, random_)
    finally:
        os.chdir(here)


def _damage(folder: Path, count: int, random_: random.Random) -> Counter[str]:
    whole, run = folder / "runs" / "whole", folder / "runs" / "damaged"
    generating = ["generate", "runs/damaged", "--prompt", "the", "--max_new_tokens", "12", "--device", "cpu"]
    resuming = ["train", "--resume", "runs/damaged", "--train.steps", "10"]

    def commands() -> tuple[Outcome, Outcome, Any]:
        generated, resumed = in_process(generating), in_process(resuming)
        return generated, resumed, (metrics(run), curves(run)) if resumed.status == 0 else None

    shutil.copytree(whole, run)
    expected, resumed, results = commands()
    assert expected.status == resumed.status == 0 and not expected.err + resumed.err, (expected, resumed)
    done: Counter[str] = Counter(dict.fromkeys(("damages", "unnoticed", "tracebacks", "hangs"), 0))
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    for number in range(count):
        shutil.rmtree(run)
        shutil.copytree(whole, run)
        file = files[number % len(files)]
        kind = harm_file(run / file, whole, files, random_)
        generated, resumed, now = commands()
        done["damages"] += 1
        done[f"by {kind}"] += 1
        for name, outcome, same in (
            ("generate", generated, generated.out == expected.out),
            ("resume", resumed, now == results),
        ):
            if outcome.fault:
                what = "hangs" if outcome.fault.startswith("TimeoutError") else "tracebacks"
            elif (outcome.status == 2 and outcome.err.startswith("error: ")) or "\nerror: " in outcome.err:
                what = f"{name} refused in a sentence"
                if outcome.err.splitlines()[-1].count("error: ") != 1:
                    what = "tracebacks"
            elif "warning: " in outcome.err:
                what = f"{name} went on with a warning"
            elif same and outcome.status == 0:
                what = f"{name} did without the file"
            else:
                what = "unnoticed"
            done[what] += 1
            if what in ("unnoticed", "tracebacks", "hangs"):
                print(f"{what}: {name} after {kind} of {file}: {outcome}", flush=True)
    return done


def harm_file(file: Path, whole: Path, files: list[Path], random_: random.Random) -> str:
    """Damage a file so that its content changes; return the kind of damage."""
    before = file.read_bytes()
    while True:
        kind = random_.choice(["bit flip"] * 5 + ["truncation"] * 4 + ["removal", "random bytes", "foreign file"])
        content = bytearray(before)
        if kind == "bit flip":
            content[random_.randrange(len(content))] ^= 1 << random_.randrange(8)
        elif kind == "truncation":
            content = content[: random_.randrange(len(content))]
        elif kind == "random bytes":
            content = bytearray(random_.randbytes(len(content)))
        elif kind == "foreign file":
            content = bytearray((whole / random_.choice(files)).read_bytes())
        elif kind == "removal":
            file.unlink()
            return kind
        if content != before:
            file.write_bytes(content)
            return kind


# Full disks


def disk(folder: Path, sizes: list[int], *, mounted: bool, cached: bool = False) -> Counter[str]:
    """Train with room for `sizes` bytes, then make room, resume and compare; counts of the outcomes.

    mounted: on a small file system, which takes root to mount; else with a limit on the size of files.
    cached: the prepared text is on another disk, so that only the run folder is short of room.
    """
    config = small_config(folder, steps=12, checkpoint_every=3)
    config = dataclasses.replace(config, log=dataclasses.replace(config.log, heads_every=1))
    done: Counter[str] = Counter(
        dict.fromkeys(("full", "not one sentence", "not whole", "unresumable", "divergent"), 0)
    )
    (folder / "room").mkdir()
    place = folder / "room"
    (folder / "text.txt").touch()
    written(folder, config, "reference")
    made = quickly(folder, "train.py", "--config", "reference.yaml")
    assert made.returncode == 0, made.stderr
    for size in sizes:
        with (
            small_disk(place, size)
            if mounted
            else contextlib.nullcontext(lambda: shutil.rmtree(place / "runs", True)) as room
        ):
            shutil.rmtree(place / "runs", ignore_errors=True)
            arguments = ["train.py", "--config", str(folder / "reference.yaml"), "--out", str(place / "runs" / "small")]
            cache = {} if cached else {"XDG_CACHE_HOME": str(place / "cache")}
            ended = minitx(folder, *arguments, harm="none" if mounted else f"size:{size}", **cache)
            if ended.returncode == 0:
                continue
            done["full"] += 1
            where = ended.stderr.partition("error: ")[2].replace(str(place), "")[:70]
            print(f"{size} bytes: {where}…", flush=True)
            if ended.returncode != 2 or ended.stderr.count("\n") != 1:
                done["not one sentence"] += 1
                print(f"not one sentence at {size} bytes: {ended}")
            run = place / "runs" / "small"
            if mounted:
                room()
            if (run / "config.yaml").exists():
                arguments = ["train.py", "--resume", str(run)]
                from minitx.run import checkpoints

                done["not whole"] += bool(checkpoints.newest_whole(run)[1])
                done["with a checkpoint"] += bool(checkpoints.names(run))
            again = quickly(folder, *arguments, **cache)
            if again.returncode:
                done["unresumable"] += 1
                print(f"unresumable at {size} bytes: {again.stderr}")
            elif unequal := differences(run, folder / "runs" / "reference"):
                done["divergent"] += 1
                print(f"divergent at {size} bytes: {unequal}")
            shutil.rmtree(place / "cache", ignore_errors=True)
    return done


@contextlib.contextmanager
def small_disk(place: Path, size: int) -> Iterator[Any]:
    """Mount `size` bytes at `place`; yields a function that makes more room. PermissionError if that is not allowed."""

    def mount(*options: str) -> None:
        done = subprocess.run(["mount", *options, str(place)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise PermissionError(done.stderr.strip())

    mount("-t", "tmpfs", "-o", f"size={size}", "none")
    try:
        yield lambda: mount("-o", "remount,size=100m")
    finally:
        subprocess.run(["umount", str(place)], check=False)


# The long run


def long(folder: Path, steps: int) -> dict[str, float]:
    """A run of many steps of a minute model: its memory, open files and logs."""
    config = small_config(
        folder,
        steps=steps,
        batch_size=2,
        eval_every=steps // 10,
        checkpoint_every=steps // 50,
        sample_every=steps // 10,
    )
    config = dataclasses.replace(config, log=dataclasses.replace(config.log, heads_every=steps // 20))
    written(folder, config, "long")
    run = folder / "runs" / "long"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), "--config", "long.yaml"],
        cwd=folder, env=environment(folder), stdout=subprocess.DEVNULL,
    )  # fmt: skip
    measured: dict[int, tuple[int, int]] = {}
    while process.poll() is None:
        time.sleep(0.2)
        with contextlib.suppress(OSError, ValueError, IndexError):
            step = json.loads((run / "metrics.jsonl").read_bytes().rstrip().rpartition(b"\n")[2])["step"]
            memory = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * resource.getpagesize()
            measured[step] = (memory, len(list(Path(f"/proc/{process.pid}/fd").iterdir())))
    assert process.returncode == 0
    first = min(step for step in measured if step >= steps // 10)
    late = [step for step in measured if step >= steps // 10]
    assert [line["step"] for line in metrics(run)] == list(range(1, steps + 1))
    assert [step for step, _ in curves(run)["Loss/train"]] == list(range(1, steps + 1))
    return {
        "steps": steps,
        "memory at a tenth, MB": round(measured[first][0] / 1e6, 1),
        "growth after it, MB": round((max(measured[step][0] for step in late) - measured[first][0]) / 1e6, 1),
        "open files at a tenth": measured[first][1],
        "open files, most after it": max(measured[step][1] for step in late),
        "metrics.jsonl, MB": round((run / "metrics.jsonl").stat().st_size / 1e6, 1),
        "event file, MB": round(sum(file.stat().st_size for file in run.glob("events*")) / 1e6, 1),
    }


def main() -> None:
    """Do one kind of harm, or be the process that is harmed."""
    if sys.argv[1:2] == ["child"]:
        child(sys.argv[2], sys.argv[3], sys.argv[4:])
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=["kills", "damage", "disk", "long"])
    parser.add_argument("--count", type=int, help="kills (30), damages (500) or steps (10000)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    began = time.monotonic()
    result: dict[str, Any]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.kind == "kills":
            result = dict(kills(folder, options.count or 30, options.seed))
        elif options.kind == "damage":
            result = dict(damage(folder, options.count or 500, options.seed))
        elif options.kind == "long":
            result = long(folder, options.count or 10_000)
        else:
            ways: dict[str, tuple[list[int], bool, bool]] = {
                "files limited": ([round(4000 * 1.6**i) for i in range(11)], False, False),
                "small disk": ([round(8192 * 1.6**i) for i in range(11)], True, False),
                "small disk for the run alone": (
                    [4096 * i for i in (1, 2, 3, 4, 5, 6, 8, 20, 50, 90, 130)],
                    True,
                    True,
                ),
            }
            result = {}
            for way, (sizes, mounted, cached) in ways.items():
                (folder / way).mkdir()
                try:
                    result[way] = dict(disk(folder / way, sizes, mounted=mounted, cached=cached))
                except PermissionError as error:
                    print(f"no small file system: {error}")
    print(json.dumps(result, indent=2))
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
