"""Every verb that reads, with every kind of file damaged in every kind of way.

A damage is a line of text: VERB | FILE | what is done to the file. It is a fault if the verb then says something else
without a warning (unnoticed), ends in a traceback, hangs, takes 1 GB more memory, or refuses and leaves something
behind. Else it did without the file, warned, or refused in a sentence.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import os
import random
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import yaml

from minitx.system.files import checksum, digest
from tests.reliability.common import TEXT, VERBS, Outcome, Verb, afresh, build, forked, holds, plain

FAULTS = ("unnoticed", "traceback", "hang", "memory", "left behind")
PLAIN = ("null", "true", "1e308", "NaN", "Infinity", "-1", "0.5", '"x"', '""', '"../../x"', "[]", "{}")
LONG = {"10**400": "1" + "0" * 400, "5,000 digits": "7" * 5000, "20,000 brackets": "[" * 20000 + "]" * 20000}
YAML = ("190:20:30", ".nan", "-.inf", "0x10", "2026-11-25", "!!python/name:os.system", "&a [*a]")
"""Values for a field of JSON: plain ones, long ones by name, and those for YAML alone."""
STRUCTURED = {".heads": (19, 4, 4), ".safetensors": (0, 8, 0), ".json": (0, 0, 0)}
STRUCTURED |= {".jsonl": (0, 0, 0), ".yaml": (0, 0, 0)}
"""Endings of files with fields → where the length of the part with fields stands, its bytes, those of a checksum."""
WEIGHTS = {"flip": 5, "cut": 3, "copy": 4, "random": 1, "empty": 1, "remove": 1, "fifo": 1, "zero": 1, "urandom": 1}
WEIGHTS |= {"directory": 1, "loop": 1, "sparse": 1, "set": 0}
"""Kinds of damage → how often they are drawn."""
FITS = " (checksums fit)"
SOURCES = ("text.txt", "rows.jsonl")
VARYING = r"(?<=tfevents\.)[0-9.]+|[0-9a-f]{32,}"
"""What the names of files have anew each time; a * stands for it in a line."""


def fields(path: Path, line: int = 0) -> tuple[bytes, Any, bytes]:
    """What stands before the part of a file with fields, that part (of .jsonl a line), and what stands after it."""
    raw = path.read_bytes()
    start, width, skipped = STRUCTURED[path.suffix]
    end = start + width + skipped + int.from_bytes(raw[start : start + width], "little") if width else len(raw)
    if path.suffix == ".jsonl":
        lines = raw.splitlines(keepends=True)
        start, end = len(b"".join(lines[:line])), len(b"".join(lines[: line + 1])) - 1
    part = raw[start + width + skipped : end]
    return raw[:start], yaml.safe_load(part) if path.suffix == ".yaml" else json.loads(part), raw[end:]


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The places of all values in plain data; of a long list only the first and the last."""
    yield place
    inside = [*value.items()] if isinstance(value, dict) else [*enumerate(value)] if isinstance(value, list) else []
    for key, inner in inside if isinstance(value, dict) else [*inside[:1], *inside[1:][-1:]]:
        yield from places(inner, (*place, key))


def with_value(path: Path, line: int, place: list[Any], value: str) -> bytes:
    """The bytes of a file with another value at a place in its fields; "gone" takes the field out."""
    before, content, after = fields(path, line)
    outer = inner = [copy.deepcopy(content)]
    *above, last = [0, *place]
    for key in above:
        inner = inner[key]
    inner[last] = "@odd@"
    if value == "gone":
        del inner[last]
    text = json.dumps(outer)[1:-1].replace('"@odd@"', LONG.get(value, value)).encode()
    start, width, skipped = STRUCTURED[path.suffix]
    length, kept = len(text).to_bytes(8, "little")[:width], path.read_bytes()[start + width :][:skipped]
    return before + length + kept + text + after


def draw(world: Path, file: str, random_: random.Random) -> str:
    """A random damage to a file; it may be one that changes nothing."""
    path = world / file
    bytes_, fits = max(1, path.stat().st_size), random_.choice(["", "", FITS])
    weights = {**WEIGHTS, "set": 16 * (path.suffix in STRUCTURED)}
    if file in SOURCES:  # 3 GB of text would be a text
        del weights["sparse"]
    kind = random_.choices([*weights], [*weights.values()])[0]
    if kind == "copy":  # of the same kind from elsewhere, or any other
        name = re.sub(f"(?:{VARYING}|[0-9]{{6}})+", "*", path.name)
        others = [other for other in sorted(world.rglob(random_.choice([name, name, "*.*"]))) if other.is_file()]
        return f"copy {re.sub(VARYING, '*', str(random_.choice(others).relative_to(world)))}{fits}"
    if kind == "set":
        line = random_.randrange(path.read_bytes().count(b"\n")) if path.suffix == ".jsonl" else 0
        place = random_.choice([*places(fields(path, line)[1])])
        values = [*PLAIN, *LONG, "gone", *(YAML if path.suffix == ".yaml" else ())]
        return f"set {json.dumps([line, *place])} {random_.choice(values)}{fits}"
    at = {"flip": 8 * bytes_, "cut": bytes_, "random": 1000}.get(kind)
    return f"{kind} {random_.randrange(at)}{fits}" if at else kind


def named(world: Path, file: str) -> Path:
    """The file of a name with *; the largest, which is that of the larger text."""
    return max(world.glob(file), key=lambda path: path.stat().st_size)


def harm(world: Path, file: str, damage: str) -> bool:
    """Do to a file what `damage` says; whether that changed anything."""
    path = named(world, file)
    before, old = path.read_bytes(), checksum(path)
    kind, _, detail = damage.removesuffix(FITS).partition(" ")
    content = bytearray(before)
    if kind == "flip":
        content[int(detail) // 8] ^= 1 << int(detail) % 8
    elif kind == "set":
        (line, *place), end = json.JSONDecoder().raw_decode(detail)
        content = bytearray(with_value(path, line, place, detail[end + 1 :]))
    elif kind in ("cut", "empty"):
        content = content[: int(detail or 0)]
    elif kind == "random":
        content = bytearray(random.Random(int(detail)).randbytes(len(before)))
    elif kind == "copy":
        content = bytearray(named(world.with_name("whole"), detail).read_bytes())
    else:
        path.unlink()
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "directory":
            path.mkdir()
        elif kind == "sparse":
            path.write_bytes(before)
            os.truncate(path, 3 << 30)
        elif kind != "remove":
            path.symlink_to(path.name if kind == "loop" else f"/dev/{kind}")
        return True
    path.write_bytes(content)
    if damage.endswith(FITS):
        refit(world, path, old)
    return content != before


def refit(world: Path, file: Path, old: str) -> None:
    """Make all checksums of a changed file fit, its own and those in other files, as a stranger would."""
    if file.suffix == ".heads":
        raw = file.read_bytes()
        header = raw[27 : 27 + int.from_bytes(raw[19:23], "little")]
        file.write_bytes(raw[:23] + crc32(header).to_bytes(4, "little") + raw[27:])
    with contextlib.suppress(ValueError, AttributeError, TypeError, RecursionError):
        content = json.loads(file.read_bytes())
        if content.pop("sha256", None):
            file.write_text(json.dumps({**content, "sha256": digest(content)}))
    new = checksum(file)
    for other in world.rglob("*.json") if new != old else ():
        if other != file and old in (text := other.read_text("utf-8", "replace")):
            before = checksum(other)
            other.write_text(text.replace(old, new))
            refit(world, other, before)


def tab() -> int:
    """Ask the Attention tab for everything that it tells of a run; what it refuses is a warning."""
    from werkzeug.test import Client

    from minitx.tensorboard.plugin.plugin import AttentionPlugin

    apps = AttentionPlugin(SimpleNamespace(logdir="runs", flags=None)).get_plugin_apps()
    asked = ["/runs", "/run?run=whole", "/scores?run=whole&name=induction", "/page?run=whole"]
    asked += [f"/snapshot?run=whole&step={step}&probe={probe}" for step in (4, 8) for probe in (0, 1)]
    asked += [f"/examples?run=whole&step={step}&head=1" for step in (4, 8)]
    for route in asked:
        answer = Client(apps[route.partition("?")[0]]).get(route)
        assert answer.status_code < 500, f"{route}: {answer.status}"
        told = answer.get_json() if answer.is_json else {}
        if answer.status_code != 200 or told.get("fault"):
            print(f"warning: {told.get('error') or told['fault']}", file=sys.stderr)
        elif "scanned" in told and f"step={told['step']}&" not in route:
            print(f"warning: the examples are of step {told['step']}", file=sys.stderr)  # as the view does
        print(route, answer.data)
    return 0


def own_text() -> int:
    """What the process behind the text box of the tab answers, from a checkpoint and from weights alone."""
    from minitx.system.exits import run_command
    from minitx.system.files import remove
    from minitx.tensorboard.text_process import Models, answer

    remove(Path("runs/whole/checkpoints/step-000004"))

    def answers() -> int:
        for step, fields in ((8, {"question": "snapshot"}), (4, {"question": "without", "heads": [1], "how": "mean"})):
            print(answer(Models(), {"run": "runs/whole", "step": step, "text": TEXT, **fields}))
        return 0

    return run_command(answers)


READERS = {name: verb for name, verb in VERBS.items() if verb.reads}
READERS |= {name: Verb(call, reads=("runs/whole",)) for name, call in (("tab", tab), ("own text", own_text))}


def read(world: Path, verb: Verb, seconds: int = 60, *, names: bool = False) -> Outcome:
    """Call a reader; its result is all that it told and wrote. names: it prints the files that it opens."""

    def hook(event: str, details: tuple[Any, ...]) -> None:
        if event == "open" and str(details[0]).startswith(("runs/", str(world))):
            os.write(2, f"{os.path.relpath(str(details[0]), world)}\n".encode())

    def called() -> int:
        if names:
            sys.addaudithook(hook)
        return verb()

    return forked(world, called, lambda text: [plain(text), holds(world / verb.made) if verb.made else None], seconds)


def verdict(outcome: Outcome, expected: str, forged: bool) -> str:
    """What a reader made of a damage."""
    if outcome.status == -signal.SIGALRM:
        return "hang"
    if outcome.memory > 1 << 30 or "Memory ran out" in outcome.err or "MemoryError" in outcome.err:
        return "memory"
    is_sentence = (
        outcome.last.startswith("error: ")
        and len(re.findall("^error: ", outcome.err, re.MULTILINE)) == 1
        and len(outcome.last) < 1000
    )
    if outcome.status != 0 or "Traceback" in outcome.err:
        return "refused in a sentence" if outcome.status == 2 and is_sentence else "traceback"
    if "warning: " in outcome.err:
        return "went on with a warning"
    if outcome.result == expected:
        return "did without the file"
    return "forged, outside what is promised" if forged else "unnoticed"


def lines(whole: Path, pairs: list[tuple[str, str]], random_: random.Random) -> Iterator[str]:
    """Random damages without end: every verb and file in turn."""
    for name, file in itertools.cycle(pairs):
        yield f"{name} | {re.sub(VARYING, '*', file)} | {draw(whole, file, random_)}"


def damage(
    folder: Path, count: int, seed: int, names: list[str] | None, cases: list[str], seconds: int
) -> dict[str, Any]:
    """Do `cases` and `count` random damages, for the verbs `names`; counts of what came of them."""
    build(folder)
    random_, whole = random.Random(seed), folder / "whole"
    expected, pairs = {}, []
    for name in names or READERS:
        undisturbed = read(afresh(folder, READERS[name]), READERS[name], names=True)
        assert undisturbed.status == 0 and "warning: " not in undisturbed.err, (name, undisturbed)
        expected[name], opened = undisturbed.result, {*undisturbed.err.splitlines()}
        files = [file for place in READERS[name].reads for file in (whole / place, *sorted((whole / place).rglob("*")))]
        inside = [str(file.relative_to(whole)) for file in files if file.is_file() and file.name != ".lock"]
        pairs += [(name, file) for file in inside for _ in range(5 if file in opened else 1)]
    random_.shuffle(pairs)
    done: Counter[str] = Counter()
    by_kind: dict[str, dict[str, Counter[str]]] = {}
    for line in itertools.chain(cases, lines(whole, pairs, random_)):
        if done["damages"] == len(cases) + count:
            break
        name, file, harmed = line.split(" | ", 2)
        verb = READERS[name]
        world = afresh(folder, verb)
        if not harm(world, file, harmed):
            continue
        is_new = not (world / (verb.made or ".")).exists()
        outcome = read(world, verb, seconds)
        came = verdict(outcome, expected[name], FITS in harmed or (file in SOURCES and "data" in name))
        if is_new and came.startswith("refused") and holds(world / verb.made):
            came = "left behind"
        done.update(("damages", came))
        if done["damages"] % 500 == 0:
            print(dict(done), flush=True)
        by_kind.setdefault(name, {}).setdefault(re.sub("[0-9]{6}", "", Path(file).name), Counter())[came] += 1
        if came in FAULTS:
            place = re.findall(r"(minitx/\S+)\", line (\d+)", outcome.err)[-1:]
            print(f"{came}: {line}\n    {outcome.last[:300]} {place}", flush=True)
    return {"all": dict(done), **by_kind}
