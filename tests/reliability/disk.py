"""Trainings whose disk fills up, given room and resumed."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from minitx.run import checkpoints
from tests.reliability.common import differences, minitx, quickly, written
from tests.small import small_config

WAYS: dict[str, tuple[list[int], bool, bool]] = {
    "files limited": ([round(4000 * 1.6**i) for i in range(11)], False, False),
    "small disk": ([round(8192 * 1.6**i) for i in range(11)], True, False),
    "small disk for the run alone": ([4096 * i for i in (1, 2, 3, 4, 5, 6, 8, 20, 50, 90, 130)], True, True),
}
"""Sizes in bytes, and the options `mounted` and `cached` of `disk`."""


def disks(folder: Path) -> dict[str, Any]:
    """Every way; one that takes another user is left out and says so."""
    result = {}
    for way, (sizes, mounted, cached) in WAYS.items():
        (folder / way).mkdir()
        try:
            result[way] = dict(disk(folder / way, sizes, mounted=mounted, cached=cached))
        except PermissionError as error:
            print(f"no small file system: {error}")
    return result


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
    place = folder / "room"
    place.mkdir()
    (folder / "text.txt").touch()
    written(folder, config, "reference")
    made = quickly(folder, "train.py", "--config", "reference.yaml")
    assert made.returncode == 0, made.stderr
    for size in sizes:
        limited = contextlib.nullcontext(lambda: shutil.rmtree(place / "runs", True))
        with small_disk(place, size) if mounted else limited as room:
            shutil.rmtree(place / "runs", ignore_errors=True)
            arguments = ["train.py", "--config", str(folder / "reference.yaml"), "--out", str(place / "runs" / "small")]
            cache = {} if cached else {"XDG_CACHE_HOME": str(place / "cache")}
            limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"
            ended = minitx(folder, *arguments, before="pass" if mounted else limit, **cache)
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
