"""`minitx bench`: how fast minitx is on this machine, beside what else there is."""

from __future__ import annotations

import importlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minitx.bench.settings import SUITES, BenchConfig
from minitx.config.parsing import instantiate, new_parser, parse
from minitx.system.errors import UserError

if TYPE_CHECKING:
    from minitx.bench.tables import Table
    from minitx.system.runtime import Runtime


def main(arguments: Sequence[str], prog: str) -> int:
    """Measure as the command line says; the exit status."""
    parser = new_parser(prog, BenchConfig)
    suites = "; ".join(f"{name} ({meaning})" for name, meaning in SUITES.items())
    parser.description = f"{BenchConfig.__doc__} Suites: {suites}."
    settings = instantiate(parser, parse(parser, BenchConfig, arguments), BenchConfig)
    return bench(settings, f"{prog} {shlex.join(arguments)}")


def bench(settings: BenchConfig, command: str) -> int:
    """Run the suites and print each table as soon as it is there; the exit status."""
    from minitx.bench.machine import head
    from minitx.bench.shapes import named
    from minitx.fast.compiler import forget_programs
    from minitx.system.runtime import choose_runtime

    shapes = [named(name) for name in settings.shapes]
    runtime = choose_runtime(settings.device, settings.dtype, settings.compile, settings.threads)
    check(settings, runtime)
    about = head(runtime)
    print("\n".join(f"{name}: {value}" for name, value in about.items()) + "\n", flush=True)
    tables: list[tuple[str, Table]] = []
    for suite in settings.suites:
        module = importlib.import_module(f"minitx.bench.suites.{suite}")
        for table in module.run(settings, shapes, runtime):
            print(table.as_text() + "\n", flush=True)
            tables.append((suite, table))
            write(settings, {"about": about, "command": command}, tables)
            forget_programs()
    return 0


def check(settings: BenchConfig, runtime: Runtime) -> None:
    """Raise `UserError` now for a device or a peer that a later suite would miss."""
    from minitx.bench.peers import llama2c
    from minitx.bench.peers import transformers as peers
    from minitx.bench.suites import gpu

    if "gpu" in settings.suites:
        gpu.require_cuda(runtime)
    if settings.nanogpt is not None:
        peers.nano_gpt_module(settings.nanogpt)
    if settings.llama2c is not None:
        llama2c.find_run(settings.llama2c)


def write(settings: BenchConfig, about: dict[str, Any], tables: list[tuple[str, Table]]) -> None:
    """Write what was measured so far to the file of --json, if there is one."""
    if settings.json is None:
        return
    content = {**about, "tables": [{"suite": suite, **table.as_json()} for suite, table in tables]}
    try:
        Path(settings.json).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
    except OSError as error:
        raise UserError(f"{settings.json} cannot be written ({error.strerror}): name another file.") from error
