"""Files that grow while a run trains: metrics, head scores, TensorBoard's events."""

import contextlib
import json
from pathlib import Path
from typing import Any

from minitx.system.files import checksum, flush_to_disk, remove, sha256, with_filename, without_nan, write_atomically
from minitx.system.text import warn

METRICS_FILE, HEADS_FILE = "metrics.jsonl", "heads.jsonl"
LOGS = (METRICS_FILE, HEADS_FILE, "events.out.tfevents.*")


def append_line(file: Path, line: dict[str, Any]) -> None:
    """Append a line of JSON; NaN and infinity become null."""
    with with_filename(file), file.open("a", encoding="utf-8") as opened:
        opened.write(json.dumps(without_nan(line), allow_nan=False) + "\n")


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The lines of JSON with a step, without those that a kill cut short or that are damaged."""
    lines = []
    for text in file.read_text("utf-8", errors="replace").split("\n") if file.is_file() else []:
        with contextlib.suppress(ValueError, RecursionError):
            line = json.loads(text)
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                lines.append(line)
    return lines


def log_files(run: Path) -> list[Path]:
    """The logs in a run folder, in order of their names."""
    return sorted(path for name in LOGS for path in run.glob(name) if path.is_file())


def log_state(run: Path) -> dict[str, dict[str, Any]]:
    """Size in bytes and checksum of each log, after flushing it to disk; a checkpoint keeps them."""
    for file in log_files(run):
        flush_to_disk(file)
    return {file.name: {"bytes": file.stat().st_size, "sha256": checksum(file)} for file in log_files(run)}


def cut_logs(run: Path, saved: dict[str, dict[str, Any]], step: int) -> None:
    """Cut the logs back to the checkpoint of `step`, so that no step is in them twice; `saved` is its `log_state`.

    Logs that are not in `saved` are removed. A missing log, and one that has changed in the part to keep, gets a
    warning; of changed JSON lines, the readable ones up to `step` are kept.
    """
    files = {file.name: file for file in log_files(run)}
    for name in files.keys() - saved.keys():
        remove(files[name])
    for name, before in saved.items():
        if name not in files:
            warn(f"{run / name} is missing: its part up to the checkpoint is lost.")
            continue
        file = files[name]
        content = file.read_bytes()
        kept = content[: int(before["bytes"])]
        if sha256(kept) != before["sha256"]:
            warn(f"{file} has changed since the checkpoint: lines that cannot be read are lost.")
            if name in (METRICS_FILE, HEADS_FILE):
                lines = [json.dumps(line) + "\n" for line in read_lines(file) if line["step"] <= step]
                kept = "".join(lines).encode()
        if kept != content or file.is_symlink():
            write_atomically(file, kept)
