"""Every verb that writes, ended at each of its file operations and called again.

An end is a kill, or a power cut: then files also lose what was not flushed to disk. After it, whatever the verb writes
must be whole, absent or a draft. The next call must end as an undisturbed one does, and leave no drafts.
"""

from __future__ import annotations

import builtins
import dataclasses
import io
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch

from tests.reliability.common import DRAFT, VERBS, Outcome, Verb, afresh, build, forked, holds

RENAMES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")
OPENS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
RESUMED = {"train": "train --resume runs/new", "prune --finetune": "train --resume runs/new --train.steps 10"}
"""Verbs whose half-made run is gone on with, and how."""


def count_operations(folder: Path, last: int, *, power: bool = False) -> list[int]:
    """Kill this process at its `last`-th file operation in `folder`: a change of a name, opening to write, a write.

    A killed write writes half. power: before, cut every file back to what was flushed. Returns a list with the count.
    """
    done, opener = [0], io.open
    flushed: dict[int, tuple[int, int]] = {}  # inode → a descriptor of ours, and the size that is on disk

    def happened(half: Callable[[], object] = int) -> None:
        done[0] += 1
        if done[0] == last:
            half()
            for descriptor, size in flushed.values() if power else ():
                os.ftruncate(descriptor, size)
            os.kill(os.getpid(), signal.SIGKILL)

    def inside(name: object) -> bool:
        return isinstance(name, str | os.PathLike) and os.path.abspath(name).startswith(f"{folder}/")  # noqa: PTH100

    def hook(event: str, details: tuple[Any, ...]) -> None:
        if event in RENAMES:
            is_relative = isinstance(details[-1], int) and details[-1] >= 0  # to a folder that is open
            if is_relative or any(map(inside, details)):
                happened()
        elif event == "open" and isinstance(details[2], int) and details[2] & OPENS and inside(details[0]):
            happened()

    class Raw(io.FileIO):
        """A file whose every write counts."""

        def write(self, data: Any) -> int:
            happened(lambda: io.FileIO.write(self, bytes(data)[: len(bytes(data)) // 2]))
            return super().write(data) or 0

    def opened(file: Any, mode: str = "r", buffering: int = -1, *options: Any, **more: Any) -> Any:
        if not set(mode) & set("wax+") or not inside(file):
            return opener(file, mode, buffering, *options, **more)
        raw = Raw(file, mode.replace("b", "").replace("t", ""))
        flushed[os.fstat(raw.fileno()).st_ino] = os.dup(raw.fileno()), os.fstat(raw.fileno()).st_size
        buffered: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *options, **more)

    def flush(descriptor: int) -> None:
        happened()
        status = os.fstat(descriptor)
        if status.st_ino in flushed:
            flushed[status.st_ino] = flushed[status.st_ino][0], status.st_size

    def save(tensors: Any, name: Any, metadata: Any = None) -> None:  # else Rust writes it, unseen
        Path(name).write_bytes(safetensors.serialize(tensors, metadata))

    replaced = (builtins, "open", opened), (io, "open", opened), (os, "fsync", flush)
    for module, name, ours in (*replaced, (safetensors.torch, "serialize_file", save)):
        setattr(module, name, ours)
    sys.addaudithook(hook)
    return done


def call(world: Path, verb: Verb, last: int = 0, *, power: bool = False) -> Outcome:
    """Call a verb, killed at its `last`-th operation; it prints the number of operations at its end."""

    def counted() -> int:
        done = count_operations(world, last, power=power)
        status = verb()
        print(done[0])
        return status

    return forked(world, counted, lambda _: None, 120)


def is_half_made(path: Path, name: str, before: Any, whole: Any) -> bool:
    """Whether something that is neither the old nor the new result of the verb `name` stands in its place."""
    if path.is_dir() and name.startswith("data"):  # prepared folders appear whole
        prepared = [folder for folder in path.glob("*/") if not DRAFT.fullmatch(folder.name)]
        return any(len([*folder.iterdir()]) < 4 for folder in prepared)
    if path.is_dir() and (name in RESUMED or name in ("train --resume", "compare")):  # they grow
        return not any((path / file).exists() for file in ("config.yaml", "comparison.json"))
    return holds(path) not in (None, before, whole)


def crash(folder: Path, name: str, last: int, power: bool, old: bytes | None, whole: Any) -> list[str] | None:
    """End a verb at its `last`-th operation and call it again; its faults, None if it was through before.

    old: a page or picture that is there.
    """
    verb, world = VERBS[name], afresh(folder, VERBS[name])
    made = world / verb.made
    if old:
        made.write_bytes(old)
    ended = call(world, verb, last, power=power)
    if ended.status == 0:  # an older page takes fewer operations
        return None
    assert ended.status == -signal.SIGKILL, (name, last, ended)
    faults = ["half-made"] if is_half_made(made, name, old, whole) else []
    if name in RESUMED and (made / "config.yaml").exists():
        verb = dataclasses.replace(verb, line=RESUMED[name])
    again = call(world, verb)
    if not (again.status == 0 or (again.status == 2 and again.last.startswith("error: "))):
        faults.append(f"not resumable: {again.last}")
    second = made.with_name(f"{made.name}-2")
    if holds(second if second.exists() else made) != whole:
        faults.append(f"divergent: {again.last}")
    if left := [str(path.relative_to(world)) for path in world.rglob("*") if DRAFT.fullmatch(path.name)]:
        faults.append(f"drafts left: {', '.join(left)}")
    return faults


def crashes(folder: Path, count: int | None, seed: int, names: list[str] | None = None) -> dict[str, Any]:
    """End every verb at each of its file operations, or at `count` random ones in all; counts of the outcomes."""
    build(folder)
    chosen = [n for n, verb in VERBS.items() if verb.made and (names is None or n in names)]
    result = {}
    for name in chosen:
        world = afresh(folder, VERBS[name])
        undisturbed = call(world, VERBS[name])
        assert undisturbed.status == 0, (name, undisturbed)
        operations, whole = int(undisturbed.out.split()[-1]), holds(world / VERBS[name].made)
        olds = (None, b"old") if "." in VERBS[name].made else (None,)
        points = [(n, power, old) for n in range(1, operations + 1) for power in (False, True) for old in olds]
        if count is not None:
            points = random.Random(seed).sample(points, min(len(points), max(1, count // len(chosen))))
        done: Counter[str] = Counter()
        for last, power, old in points:
            faults = crash(folder, name, last, power, old, whole)
            done["power cuts" if power else "kills"] += faults is not None
            for fault in faults or ():
                done[fault.partition(":")[0]] += 1
                how = f"{'power cut' if power else 'kill'} at operation {last}{' over a file' * bool(old)}"
                print(f"{name}, {how}: {fault}", flush=True)
        result[name] = {"operations": operations, **done}
        print(f"{name}: {result[name]}", flush=True)
    return {"all": dict(sum(map(Counter, result.values()), Counter[str]())), **result}
