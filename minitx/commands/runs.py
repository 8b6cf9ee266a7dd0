"""`minitx runs`: the runs in a folder, oldest first, with their steps, loss and size, and which of them are whole."""

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import ArgumentParser

from minitx.config.parsing import parse_plain
from minitx.run.listing import Listed, list_runs
from minitx.system.text import markdown_table, one_line

COLUMNS = ("run", "newest checkpoint", "steps", "bits per byte", "parameters", "MB", "state")


def main(arguments: Sequence[str], prog: str) -> int:
    """List the runs; the exit status, which is 1 if --check finds a damaged one."""
    parser = ArgumentParser(prog=prog, description=__doc__, exit_on_error=False)
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default="runs", help="Folder of runs; by default runs.")
    parser.add_argument("--check", action="store_true", help="Compare every file with its checksum, which reads all.")
    parser.add_argument("--json", action="store_true", help="Print a JSON list.")
    options = parse_plain(parser, arguments)
    runs = list_runs(Path(options.folder), options.check)
    if options.json:
        entries = [dataclasses.asdict(run) | {"date": date(run, "%Y-%m-%dT%H:%M:%S%z")} for run in runs]
        print(json.dumps(entries, indent=2))
    elif not runs:
        print(f"There is no run in {one_line(options.folder)}.")
    else:
        print(markdown_table(COLUMNS, [row(run) for run in runs], [True, True, *[False] * 4, True]))
        for run in runs:
            for fault in run.faults:
                print(one_line(f"{run.path} is damaged: {fault}"))
    return int(options.check and any(run.faults for run in runs))


def row(run: Listed) -> list[str]:
    """The cells of a run."""
    steps = f"{run.step:,} of {'?' if run.steps is None else format(run.steps, ',')}"
    bits = "" if run.val_bits_per_byte is None else f"{run.val_bits_per_byte:.3f}"
    parameters = "" if run.parameters is None else f"{run.parameters:,}"
    notes = {"unfinished": "unfinished, can be resumed", "training": "training now"}
    state, saved = notes.get(run.state, run.state), date(run, "%Y-%m-%d %H:%M")
    if run.parameters is None and run.state == "unfinished":
        state, saved = "no checkpoint yet, can be resumed from step 0", ""
    return [one_line(run.path), saved, steps, bits, parameters, f"{run.bytes / 1e6:,.1f}", state]


def date(run: Listed, form: str) -> str:
    """When a run was last saved, in local time."""
    return time.strftime(form, time.localtime(run.date))
