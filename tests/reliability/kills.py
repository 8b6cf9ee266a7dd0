"""Runs in new processes, killed at random moments and resumed."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minitx.config import Config
from tests.reliability.common import DRAFT, differences, minitx, quickly, written
from tests.reliability.crashes import count_operations
from tests.small import small_config, small_text

KINDS = {"write": (1, 300), "evaluation": (1, 60), "step": (1, 24), "time": (0, 2)}
"""What a kill waits for, and the range of its random number."""


def end_at(kind: str, number: float) -> None:
    """Kill this process with SIGKILL before its `number`-th

    - write: file operation in the folder runs, see `count_operations`,
    - evaluation: batch of an evaluation,
    - step: training step,
    - time: second after training began.
    """
    if kind == "write":
        count_operations(Path("runs").absolute(), int(number))
        return
    import minitx.training.loop as training

    name = {"time": "fit", "evaluation": "validation_windows", "step": "train_step"}[kind]
    function, left = getattr(training, name), [int(number)]

    def count() -> None:
        left[0] -= 1
        if left[0] <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def end() -> None:
        time.sleep(number)
        os.kill(os.getpid(), signal.SIGKILL)

    def counting(batches: Any) -> Any:
        for batch in batches:
            count()
            yield batch

    def harmed(*arguments: Any) -> Any:
        if kind == "evaluation":
            return counting(function(*arguments))
        if kind == "step":
            count()
        else:
            threading.Thread(target=end, daemon=True).start()
        return function(*arguments)

    setattr(training, name, harmed)


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


def kills(folder: Path, count: int, seed: int, names: list[str] | None = None) -> Counter[str]:
    """Kill runs at `count` random moments in all, and resume every run to its end; counts of the outcomes."""
    random_ = random.Random(seed)
    chosen = {name: config for name, config in variants(folder).items() if names is None or name in names}
    with hub(folder) as address:
        online = {name: {"HF_ENDPOINT": address, "NO_PROXY": "*"} if name == "streamed" else {} for name in chosen}
        for name, config in chosen.items():
            written(folder, config, name)
            made = minitx(folder, "train.py", "--config", f"{name}.yaml", **online[name])
            assert made.returncode == 0, made.stderr
        return _kills(folder, count, random_, online)


def _kills(folder: Path, count: int, random_: random.Random, online: dict[str, dict[str, str]]) -> Counter[str]:
    done: Counter[str] = Counter()
    while done["kills"] < count:
        number = done["runs"] + 1
        name = list(online)[number % len(online)]
        run = folder / "runs" / f"{name}-killed-{number}"
        for left in reversed(range(random_.randint(2, 5))):
            kind = random_.choice(list(KINDS))
            end = f"from tests.reliability.kills import end_at; end_at({kind!r}, {random_.uniform(*KINDS[kind])})"
            is_last = not left or done["kills"] >= count
            ended = go_on(folder, run, name, "" if is_last else end, online[name])
            if ended.returncode != -signal.SIGKILL:
                break
            done.update(("kills", f"killed by {kind}{' in a resumed run' if '--resume' in ended.args else ''}"))
        done["runs"] += 1
        if ended.returncode != 0:
            done["unresumable"] += 1
            print(f"unresumable: {run.name}: {ended.stdout[-300:]}{ended.stderr[-1500:]}")
            continue
        unequal = differences(run, folder / "runs" / name)
        left_drafts = [path.name for path in run.rglob("*") if DRAFT.fullmatch(path.name)]
        done.update(["divergent"] * bool(unequal) + ["drafts left"] * bool(left_drafts))
        print(f"{run.name}: {dict(done)} {'; '.join(unequal + left_drafts)}", flush=True)
    return done


def go_on(folder: Path, run: Path, name: str, end: str, more: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Resume a run, or begin it again if it was killed before it had a config.yaml; `end` kills it, if it is given."""
    if (run / "summary.json").exists():  # finished at the very moment it was killed
        return subprocess.CompletedProcess([], 0, "", "")
    if (run / "config.yaml").exists():
        if more:
            more = {**more, "HF_HUB_OFFLINE": "1"}  # the Hub is gone: a resumed run does without it
        elif not end:
            return quickly(folder, "train.py", "--resume", f"runs/{run.name}")
        return minitx(folder, "train.py", "--resume", f"runs/{run.name}", before=end or "pass", **more)
    shutil.rmtree(run, ignore_errors=True)  # so that the next one has its name
    new = ("--config", f"{name}.yaml", "--out", f"runs/{run.name}")
    return minitx(folder, "train.py", *new, before=end or "pass", **more)
