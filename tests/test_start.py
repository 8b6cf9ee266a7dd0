"""Modules that are imported before training takes its first step and before generation writes its first token.

Importing takes most of the waiting time and most of a small run's memory. The tests count modules, because seconds
differ by machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from tests.small import small_config

ROOT = Path(__file__).parents[1]
COMPILER = {"torch._dynamo", "torch._inductor", "torch.distributed.fsdp", "torch.onnx", "sympy"}
PICTURES = {"tensorboard", "torch.utils.tensorboard", "tensorflow", "matplotlib", "PIL"}
DATA_SETS = {"datasets", "pandas", "pyarrow", "transformers", "huggingface_hub"}
NOTE_AFTER = """
import atexit, json, runpy, sys

def note(when):
    print("noted", json.dumps([when, sorted(sys.modules), peak()]), file=sys.stderr, flush=True)

def peak():
    try:  # not the peak of getrusage, which a child inherits
        status = open("/proc/self/status").read()
    except OSError:
        return 0
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

def noting(module, name):
    function = getattr(module, name)
    def first(*arguments, **named):
        result = function(*arguments, **named)
        setattr(module, name, function)
        note(name)
        return result
    setattr(module, name, first)

import {module}
noting({module}, {function!r})
atexit.register(note, "end")
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def noted(folder: Path, called: str, script: str, *arguments: str) -> tuple[dict[str, set[str]], int]:
    """The modules that `script` has imported by two moments, and its peak memory in bytes, 0 if that is not known.

    The moments: the end of the first call of `called`, module:function, under the function's name; and the "end"."""
    module, function = called.split(":")
    code = NOTE_AFTER.replace("{module}", module).replace("{function!r}", repr(function))
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT / script), *arguments],
        cwd=folder,
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line[6:]) for line in done.stderr.splitlines() if line.startswith("noted ")]
    return {when: set(modules) for when, modules, _ in lines}, lines[-1][2]


def test_little_is_imported_before_the_first_step_and_the_first_token_and_never_the_compiler(tmp_path: Path) -> None:
    config = small_config(tmp_path, steps=2, eval_every=2, checkpoint_every=2, sample_every=2)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({**config.to_dict(), "out": "small"}))
    training, peak = noted(tmp_path, "minitx.training.loop:train_step", "train.py", "--config", "small.yaml")
    generating, _ = noted(
        tmp_path, "minitx.generation.generate:sample", "generate.py", "small", "--max_new_tokens", "3"
    )
    light = COMPILER | PICTURES | DATA_SETS
    assert training["train_step"] & light == set()
    assert "tensorboard" in training["end"]  # so that the line above means something
    assert training["end"] & (COMPILER | DATA_SETS) == set()
    assert generating["sample"] & light == generating["end"] & light == set()
    assert peak < 600 << 20, "with so small a model, nearly all of it is imports"
