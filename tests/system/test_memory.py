"""A process that may take little memory gets an error that has a sentence, not the whole machine's."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import torch
from minitx.system.exits import explain
from minitx.system.memory import limit_memory
limit_memory(2**31)
kept = torch.ones(2**20)
for make in (lambda: bytearray(2**32), lambda: torch.ones(2**30)):
    try:
        make()
    except Exception as error:
        print(explain(error))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to its limit on data")
def test_memory_beyond_the_limit_is_refused_in_a_sentence() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], check=True, capture_output=True, text=True)
    assert done.stdout.count("Memory ran out") == 2
