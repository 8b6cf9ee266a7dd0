"""A run of many steps."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

from tests.reliability.common import ROOT, curves, environment, metrics, written
from tests.small import small_config


def long(folder: Path, steps: int) -> dict[str, float]:
    """A run of many steps of a minute model: its memory, open files and logs."""
    tenth = steps // 10
    config = small_config(
        folder, steps=steps, batch_size=2, eval_every=tenth, checkpoint_every=steps // 50, sample_every=tenth
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
    late = [step for step in measured if step >= tenth]
    first = min(late)
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
