"""Files that grow while a run trains: metrics, head scores, TensorBoard's events."""

import hashlib
import json
import os
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from minitx.system import files
from minitx.system.errors import UserError, require
from minitx.system.fields import Fields, parse_json
from minitx.system.recorded import Recorded, read_record, record
from minitx.system.text import warn

METRICS_FILE, HEADS_FILE = "metrics.jsonl", "heads.jsonl"
LOGS = (METRICS_FILE, HEADS_FILE, "events.out.tfevents.*")
MAX_BYTES = 1 << 30
"""Bytes of a log that is read line by line; a larger one is refused."""
MAX_LINE = 1 << 24
"""Bytes of a line; the parts of a longer one are damaged lines."""


def append_line(file: Path, line: dict[str, Any]) -> None:
    """Append a line of JSON; NaN and infinity become null. Raises UserError where `file` is no plain file."""
    with files.with_filename(file), files.open_log(file) as opened:
        opened.write(as_line(file, line))


def as_line(file: Path, line: dict[str, Any]) -> str:
    """A line of JSON; one of heads.jsonl ends with a checksum of its own."""
    content = files.without_nan(line)
    seal = {"sha256": files.digest(content)[:16]} if file.name == HEADS_FILE else {}
    return json.dumps({**content, **seal}, allow_nan=False) + "\n"


def read_lines(file: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """The lines of JSON with a step, by their numbers; None for one that is damaged, or that a kill cut short.

    None at all if there is no file; raises UserError where it is no plain file, or larger than `MAX_BYTES`.
    """
    if not os.path.lexists(file):
        return
    with files.open_regular(file, MAX_BYTES) as opened, files.reading(file):
        for number, text in enumerate(iter(lambda: opened.readline(MAX_LINE), b""), 1):
            try:
                line = Fields(parse_json(text, str(file)), str(file))
                line.whole("step")
                seal = line.content.pop("sha256", None)  # lines of older versions have none
                line.expect(
                    seal is None or seal == files.digest(line.content)[:16], "sha256", "the checksum of the line"
                )
                yield number, line.content
            except UserError:
                yield number, None


def read_heads(run: Path, saved: Recorded | None) -> list[dict[str, Any]]:
    """The lines of heads.jsonl, in order of their steps and with the same heads in each.

    Warns of lines that are damaged, and if the part that a checkpoint has `saved` has changed.
    """
    file = run / HEADS_FILE
    lines: list[dict[str, Any]] = []
    damaged: list[str] = []
    for number, line in read_lines(file):
        try:
            fields = Fields({} if line is None else line, str(file))
            shape = check_heads(fields)
            fields.expect(not lines or shape == check_heads(Fields(lines[0], "")), "scores", "the heads of line 1")
            lines.append(fields.content)
        except UserError:
            damaged.append(str(number))
    if damaged:
        warn(f"{file} is damaged: its lines {', '.join(damaged[:9])} are left out.")
    if saved and first_checksum(file, saved.bytes) != saved.sha256:
        warn(f"{file} has changed since the newest checkpoint: the figures in it may be wrong.")
    return sorted(lines, key=lambda line: int(line["step"]))


def check_heads(line: Fields) -> dict[str, list[int]]:
    """The heads in each layer, by score, in a line of heads.jsonl; raises UserError where it is not as written."""
    line.expect({*line} <= {"step", "scores", "chance", "links", "repeated_loss"}, "step", "no other field")
    shapes, scores, chance = {}, line.inside("scores", dict, 1, 50), line.inside("chance", dict, 0, 50)
    for name in scores:
        layers = scores.inside(name, list, 1)
        shapes[name] = [len(layers.numbers(layer)) for layer in layers]
        is_score = re.fullmatch("[a-z_]{1,50}", name) and len({*shapes[name]}) == 1
        scores.expect(bool(is_score), name, "a score of every head")
        if name in chance:
            chance.number_or_nan(name)
    line.numbers("repeated_loss", 2, 2)
    return shapes


def log_files(run: Path) -> list[Path]:
    """The logs in a run folder, in order of their names."""
    return sorted(path for name in LOGS for path in run.glob(name) if path.is_file())


def log_state(run: Path) -> dict[str, dict[str, Any]]:
    """Size in bytes and checksum of each log, after flushing it to disk; a checkpoint keeps them."""
    for file in log_files(run):
        files.flush_to_disk(file)
    return {file.name: record(file)._asdict() for file in log_files(run)}


def read_log_state(state: Fields) -> dict[str, Recorded]:
    """What `log_state` returned, from the field logs of state.json."""
    logs = state.inside("logs", dict)
    for name in logs:
        is_log = Path(name).name == name and any(fnmatchcase(name, log) for log in LOGS)
        logs.expect(is_log and isinstance(logs.content[name], dict), name, "the record of a log")
    return {name: read_record(logs, name) for name in logs}


def cut_logs(run: Path, saved: dict[str, Recorded], step: int) -> None:
    """Cut the logs back to the checkpoint of `step`, so that no step is in them twice; `saved` is its `log_state`.

    Logs that are not in `saved` are removed. A missing log, and one that has changed in the part to keep, gets a
    warning; of changed JSON lines, the readable ones up to `step` are kept. Raises UserError for what is no plain file.
    """
    for file in log_files(run):
        if file.name not in saved:
            files.remove(file)
    for name, before in saved.items():
        file = run / name
        if not os.path.lexists(file):
            warn(f"{file} is missing: its part up to the checkpoint is lost.")
            continue
        require(not file.is_symlink(), f"{file} is a link, which would lead out of the run: put the file itself there.")
        if first_checksum(file, before.bytes) != before.sha256:
            warn(f"{file} has changed since the checkpoint: lines that cannot be read are lost.")
            if name in (METRICS_FILE, HEADS_FILE):
                lines = [line for _, line in read_lines(file) if line and line["step"] <= step]
                files.write_atomically(file, "".join(as_line(file, line) for line in lines).encode())
                continue
        if file.stat().st_size > before.bytes:
            os.truncate(file, before.bytes)


def first_checksum(file: Path, count: int) -> str:
    """SHA-256 of the first `count` bytes of a plain file, in hexadecimal; raises as `open_regular`."""
    found = hashlib.sha256()
    with files.open_regular(file) as opened, files.reading(file):
        while piece := opened.read(min(count, 1 << 20)):
            found.update(piece)
            count -= len(piece)
    return found.hexdigest()
