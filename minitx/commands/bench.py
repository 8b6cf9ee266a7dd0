"""`minitx bench`: how fast minitx and other programs are on this machine."""

import gc
import importlib
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from minitx.bench.settings import SUITES, BenchConfig
from minitx.config.parsing import instantiate, new_parser, parse
from minitx.system.files import writing


def main(arguments: Sequence[str], prog: str) -> int:
    """Measure as the command line says; the exit status."""
    parser = new_parser(prog, BenchConfig)
    suites = "; ".join(f"{name} ({meaning})" for name, meaning in SUITES.items())
    parser.description = f"{BenchConfig.__doc__} Suites: {suites}."
    settings = instantiate(parser, parse(parser, BenchConfig, arguments), BenchConfig)
    return bench(settings, f"{prog} {shlex.join(arguments)}")


def bench(settings: BenchConfig, command: str) -> int:
    """Run the suites and print every table as soon as it is measured; the exit status."""
    from minitx.bench.machine import head
    from minitx.bench.peers import llama2c, nanogpt
    from minitx.bench.shapes import named
    from minitx.bench.suite import Bench
    from minitx.fast.compiler import forget_programs
    from minitx.system.runtime import choose_runtime

    shapes = [named(name) for name in settings.shapes]
    runtime = choose_runtime(settings.device, settings.dtype, settings.compile, settings.threads)
    if settings.nanogpt is not None:
        nanogpt.load_module(settings.nanogpt)
    if settings.llama2c is not None:
        llama2c.find_run(settings.llama2c)
    about = head(runtime)
    print("\n".join(f"{name}: {value}" for name, value in about.items()) + "\n", flush=True)
    content: dict[str, Any] = {"about": about, "command": command, "tables": []}
    for suite in settings.suites:
        module = importlib.import_module(f"minitx.bench.suites.{suite}")
        for table in module.run(Bench(settings, shapes, runtime)):
            print(table.as_text() + "\n", flush=True)
            content["tables"].append({"suite": suite, **table.as_json()})
            if settings.json is not None:
                with writing(settings.json):
                    Path(settings.json).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
            forget_programs()
            gc.collect()  # compiled models lie in cycles
    return 0
